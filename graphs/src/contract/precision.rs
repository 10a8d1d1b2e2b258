//! The number formats that packages come in.

/// Names of the recipes that come with the exporter, the one that is to be run first if a package has several: small and fast
/// before exact.
pub const PRECISIONS: [&str; 6] = ["q4", "q4-mixed", "q4f16", "q8", "fp16", "fp32"];

/// Place of the recipe `name` in [`PRECISIONS`]; recipes of other names come last.
pub fn preference(name: &str) -> usize {
    PRECISIONS.iter().position(|known| *known == name).unwrap_or(PRECISIONS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_fast_comes_before_exact_and_unknown_last() {
        let mut names = ["fp32", "mine", "q8", "q4"];
        names.sort_by_key(|name| preference(name));
        assert_eq!(names, ["q4", "q8", "fp32", "mine"]);
    }
}
