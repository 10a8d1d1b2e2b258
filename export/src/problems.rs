//! Lists of what is wrong, short enough to be read.

/// Most problems of one list.
const MOST: usize = 100;

/// Most characters of one problem: names come from files that anybody may have written.
const LONGEST: usize = 1000;

/// Collects problems. Damaged files can have millions, of which only the first are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Problems {
    listed: Vec<String>,
    more: usize,
}

impl Problems {
    /// Adds a sentence.
    pub(crate) fn add(&mut self, problem: String) {
        if self.listed.len() == MOST {
            self.more += 1;
        } else {
            self.listed.push(shortened(problem));
        }
    }

    /// Whether nothing is wrong.
    pub(crate) fn is_empty(&self) -> bool {
        self.listed.is_empty()
    }

    /// The sentences, with one about those that were left out.
    pub(crate) fn into_list(mut self) -> Vec<String> {
        if self.more > 0 {
            self.listed.push(format!("and {} more", self.more));
        }
        self.listed
    }
}

impl Extend<String> for Problems {
    fn extend<T: IntoIterator<Item = String>>(&mut self, problems: T) {
        problems.into_iter().for_each(|problem| self.add(problem));
    }
}

/// One problem per line, below the line that says what they are about.
pub(crate) fn lines(problems: &[String]) -> String {
    problems.iter().map(|problem| format!("\n  - {problem}")).collect()
}

fn shortened(mut problem: String) -> String {
    if let Some((end, _)) = problem.char_indices().nth(LONGEST) {
        problem.truncate(end);
        problem.push('…');
        problem.shrink_to_fit();
    }
    problem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_problems_are_kept_and_the_others_counted() {
        let mut problems = Problems::default();
        problems.extend((0..MOST).map(|number| number.to_string()));
        assert_eq!(problems.clone().into_list().len(), MOST);
        problems.add("ä".repeat(1_000_000));
        problems.add(String::new());
        let list = problems.into_list();
        assert_eq!((list.len(), list[MOST].as_str()), (MOST + 1, "and 2 more"));
    }

    #[test]
    fn a_long_problem_is_cut_between_characters() {
        let mut problems = Problems::default();
        problems.add("ä".repeat(LONGEST));
        problems.add("ä".repeat(1_000_000));
        let lengths: Vec<usize> = problems.into_list().iter().map(|problem| problem.chars().count()).collect();
        assert_eq!(lengths, [LONGEST, LONGEST + 1]);
    }
}
