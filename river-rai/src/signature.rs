//! What a function takes and returns, as text that is equal in programs built from different sources.

use std::any::type_name;

use river_core::naming::without_paths;

/// The signature of a function with this tuple of arguments and this result: `(i64, i64) -> String`.
pub(crate) fn signature<Args, R>() -> String {
    format!("{} -> {}", without_paths(type_name::<Args>()), without_paths(type_name::<R>()))
}

/// The signature of a function whose result stays on the server: `(i64) -> object Stack`.
pub(crate) fn constructor<Args, T>() -> String {
    format!("{} -> object {}", without_paths(type_name::<Args>()), without_paths(type_name::<T>()))
}

/// The signature of a method: `Stack: (String) -> ()`.
pub(crate) fn method<T, Args, R>() -> String {
    format!("{}: {}", without_paths(type_name::<T>()), signature::<Args, R>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_do_not_count_but_everything_else_does() {
        assert_eq!(signature::<(i64, String), Vec<f64>>(), "(i64, String) -> Vec<f64>");
        assert_eq!(signature::<(), Option<std::time::Duration>>(), "() -> Option<Duration>");
        assert_ne!(signature::<(u8,), ()>(), signature::<(i8,), ()>());
    }
}
