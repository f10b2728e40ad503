//! Readable names of types.

/// Returns the name of a type with all module paths removed, wherever they occur: another program may have different ones.
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

/// Returns the last part of a type's name; `None` if `name` has no path, and so is not the name of a type.
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
