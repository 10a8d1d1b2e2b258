//! Rules that do nothing for a model.

use lfm2_graphs::ir::Weight;

use super::{Recipe, has_choice};
use crate::problems::{Problems, lines};

/// All rules that change nothing: somebody has made a slip in a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the recipe does not fit this model:{}", lines(problems))]
pub struct IdleRules {
    /// One sentence for each.
    pub problems: Vec<String>,
}

impl Recipe {
    /// Makes sure that every rule is the one that some weight of the model follows.
    pub fn refuse_idle<'w>(&self, weights: impl Iterator<Item = &'w Weight>) -> Result<(), IdleRules> {
        let weights: Vec<&Weight> = weights.filter(|weight| has_choice(weight.role)).collect();
        let mut problems = Problems::default();
        for (place, rule) in self.rules.iter().enumerate() {
            let named: Vec<_> = weights.iter().filter(|weight| rule.names(&weight.name, weight.role)).collect();
            let earlier = named.first().and_then(|weight| {
                let earlier = self.rules[..place].iter();
                earlier.clone().find(|earlier| earlier.names(&weight.name, weight.role))
            });
            let is_followed = named.iter().any(|weight| self.rule(&weight.name, weight.role) == Some(rule));
            if is_followed {
                continue;
            }
            let names: Vec<_> = rule.selectors.iter().map(ToString::to_string).collect();
            let names = names.join(", ");
            problems.add(match earlier {
                Some(earlier) => format!(
                    "{}:{}: all weights that `{names}` names follow earlier rules, such as that of line {}; put it before them",
                    self.origin, rule.line, earlier.line
                ),
                None => format!(
                    "{}:{}: `{names}` names no table, head or matrix of this model; names look like `{}`",
                    self.origin,
                    rule.line,
                    weights.last().map_or("", |weight| &weight.name)
                ),
            });
        }
        if problems.is_empty() { Ok(()) } else { Err(IdleRules { problems: problems.into_list() }) }
    }
}
