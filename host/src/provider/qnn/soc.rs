//! Systems on a chip with an NPU of Qualcomm, as its compiler knows them. It takes unknown names without a complaint and compiles for
//! no chip in particular, so that names are checked here.

/// A system on a chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Soc {
    /// Qualcomm's name, as in `SM8750`.
    pub name: &'static str,
    /// What it is sold as.
    pub sold_as: &'static str,
    /// Number for the option `soc_model`.
    pub model: u32,
    /// Generation of the NPU (`htp_arch`).
    pub generation: u32,
}

const fn soc(name: &'static str, sold_as: &'static str, model: u32, generation: u32) -> Soc {
    Soc { name, sold_as, model, generation }
}

/// Those that are known, by model. The numbers are those of `QnnTypes.h` in Qualcomm's SDK, which its documentation lists under
/// supported Snapdragon devices.
pub const ALL: &[Soc] = &[
    soc("SM8350", "Snapdragon 888", 30, 68),
    soc("SM8450", "Snapdragon 8 Gen 1", 36, 69),
    soc("SC8280X", "Snapdragon 8cx Gen 3", 37, 68),
    soc("SM7450", "Snapdragon 7 Gen 1", 41, 69),
    soc("SM8475", "Snapdragon 8+ Gen 1", 42, 69),
    soc("SM8550", "Snapdragon 8 Gen 2", 43, 73),
    soc("SM8650", "Snapdragon 8 Gen 3", 57, 75),
    soc("SC8380XP", "Snapdragon X Elite", 60, 73),
    SIMULATED,
    soc("SM8850", "Snapdragon 8 Elite Gen 5", 87, 81),
];

/// What a simulator stands for unless told otherwise.
pub const SIMULATED: Soc = soc("SM8750", "Snapdragon 8 Elite", 69, 79);

/// What the option `soc_model` takes, in words.
pub(super) const TAKES: &str =
    "30, 36, 37, 41, 42, 43, 57, 60, 69 (SM8750), 87 or a name such as SM8650, or several with commas";

/// The one called `name` or with this number.
pub fn named(name: &str) -> Option<Soc> {
    let model = name.parse().ok();
    ALL.iter().find(|soc| soc.name.eq_ignore_ascii_case(name) || Some(soc.model) == model).copied()
}

/// Whether the compiler knows this name or number.
pub(super) fn is_known(name: &str) -> bool {
    // The compiler takes names in capitals only.
    named(name).is_some_and(|soc| soc.name == name || soc.model.to_string() == name)
}

/// Whether there is an NPU of this generation.
pub(super) fn is_generation(text: &str) -> bool {
    text.parse().is_ok_and(|generation: u32| ALL.iter().any(|soc| soc.generation == generation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_one_thing() {
        for soc in ALL {
            assert_eq!(named(soc.name), Some(*soc));
            assert_eq!(named(&soc.model.to_string()), Some(*soc));
            assert!(TAKES.contains(&soc.model.to_string()) && is_known(soc.name), "{}", soc.name);
        }
        assert_eq!(named("sm8750"), Some(SIMULATED));
        assert!(!is_known("SM9999") && !is_known("sm8750") && !is_known("") && !is_known("069"));
        assert!(is_generation("79") && !is_generation("70"));
    }
}
