//! Names of types, as people want to read them.

/// The name of a type without the paths of modules, wherever they are in it: another program need not have the same.
///
/// ```
/// use river_core::naming::without_paths;
///
/// assert_eq!(without_paths("core::option::Option<a::b::C>"), "Option<C>");
/// assert_eq!(without_paths("m::Map<String, (u8, Vec<x::Y>)>"), "Map<String, (u8, Vec<Y>)>");
/// ```
#[must_use]
pub fn without_paths(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut start = 0;
    for c in name.chars() {
        text.push(c);
        if text.ends_with("::") {
            text.truncate(start);
        } else if !(c.is_alphanumeric() || c == '_' || c == ':') {
            start = text.len();
        }
    }
    text
}

/// The last part of a type's name; `None` of what is no type's name, as it has no path.
///
/// ```
/// use river_core::naming::last_part;
///
/// assert_eq!(last_part("a::Worker<b::Task>"), Some("Worker"));
/// assert_eq!(last_part("rank 3"), None);
/// ```
#[must_use]
pub fn last_part(name: &str) -> Option<&str> {
    let plain = name.split('<').next()?;
    plain.rsplit_once("::").map(|(_, last)| last)
}
