//! The names that forks get when none is given.

/// The longest name of a database, in bytes (`NAMEDATALEN - 1`).
pub const MAX_NAME: usize = 63;

/// `<source>_fork_<n>`, the source's part shortened so that all of the number stays.
pub fn default_name(source: &str, n: u64) -> String {
    let suffix = format!("_fork_{n}");
    let mut end = source.len().min(MAX_NAME - suffix.len());
    while !source.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &source[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_never_lost() {
        assert_eq!(default_name("prod", 1), "prod_fork_1");
        let long = default_name(&"x".repeat(63), 1234);
        assert_eq!((long.len(), long.ends_with("x_fork_1234")), (63, true));
        let wide = default_name(&"ä".repeat(31), 10);
        assert!(wide.len() <= MAX_NAME && wide.ends_with("ä_fork_10"));
    }
}
