//! `lfm2-export recipes`.

use serde::Serialize;

use super::args::RecipesArguments;
use super::{Outcome, print};
use crate::recipe::{Choice, Precision, Recipe};

/// A line of the list.
#[derive(Serialize)]
struct Listed {
    name: String,
    description: String,
    activations: &'static str,
    rules: Vec<ListedRule>,
}

#[derive(Serialize)]
struct ListedRule {
    weights: Vec<String>,
    bits_per_weight: f64,
    format: String,
}

/// Prints the presets, or one of them as a file to begin a recipe with.
pub(super) fn recipes(arguments: &RecipesArguments) -> anyhow::Result<Outcome> {
    if let Some(name) = arguments.name {
        return print(name.toml());
    }
    let recipes = Precision::preferred().into_iter().map(|preset| Ok(listed(&preset.recipe()?)));
    let recipes = recipes.collect::<anyhow::Result<Vec<_>>>()?;
    if arguments.json {
        return print(&(serde_json::to_string_pretty(&recipes)? + "\n"));
    }
    let mut text = String::new();
    for Listed { name, description, activations, rules } in recipes {
        text += &format!("{name:9} {description}\n");
        for ListedRule { weights, bits_per_weight, format } in &rules {
            text += &format!("{:9} {bits_per_weight:>6.2} bits: {}, {format}\n", "", weights.join(", "));
        }
        if rules.is_empty() {
            text += &format!("{:9} all weights {activations}\n", "");
        }
    }
    print(&text)
}

fn listed(recipe: &Recipe) -> Listed {
    let rules = recipe.rules.iter().map(|rule| ListedRule {
        weights: rule.selectors.iter().map(ToString::to_string).collect(),
        bits_per_weight: rule.choice.bits(),
        format: describe(rule.choice),
    });
    Listed {
        name: recipe.name.clone(),
        description: recipe.description.clone(),
        activations: recipe.activations.name(),
        rules: rules.collect(),
    }
}

fn describe(choice: Choice) -> String {
    match choice {
        Choice::Dense(dtype) => dtype.name().to_owned(),
        Choice::Blocks { blocks, method } => {
            let kind = if blocks.zero_points { "with zero points" } else { "symmetric" };
            let (bits, size, scales) = (blocks.bits, blocks.block_size, blocks.scales.name());
            format!("{bits} bits in blocks of {size}, {kind}, {scales} scales, {}", method.as_str())
        }
    }
}
