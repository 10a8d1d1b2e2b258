//! Chat templates.

/// The template with every `{% generation %}` and `{% endgeneration %}` replaced by tags that do nothing.
///
/// These tags mark the assistant's words for training. transformers.js and most other Jinja implementations do not know
/// them. Their whitespace control stays as it is, and an `if` takes part in the trimming of lines as they did, so that
/// the text that comes out is the same.
pub(super) fn without_generation(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start);
        out.push_str(before);
        let length = tag.find("%}").map_or(tag.len(), |end| end + 2);
        let (tag, after) = tag.split_at(length);
        match neutral(tag) {
            Some(replacement) => out.push_str(&replacement),
            None => out.push_str(tag),
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

/// What replaces `tag`, if it is one of the two.
fn neutral(tag: &str) -> Option<String> {
    let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let left = if inner.starts_with(['-', '+']) { &inner[..1] } else { "" };
    let inner = &inner[left.len()..];
    let right = if inner.ends_with(['-', '+']) { &inner[inner.len() - 1..] } else { "" };
    let statement = match inner[..inner.len() - right.len()].trim() {
        "generation" => "if true",
        "endgeneration" => "endif",
        _ => return None,
    };
    Some(format!("{{%{left} {statement} {right}%}}"))
}

#[cfg(test)]
mod tests {
    use super::without_generation;

    #[test]
    fn generation_tags_become_tags_that_do_nothing() {
        for (template, expected) in [
            ("a{% generation %}b{% endgeneration %}c", "a{% if true %}b{% endif %}c"),
            ("{%- generation -%}b{%+endgeneration%}", "{%- if true -%}b{%+ endif %}"),
            ("{% generation%}", "{% if true %}"),
            ("{%\n  generation\n-%}", "{% if true -%}"),
        ] {
            assert_eq!(without_generation(template), expected);
        }
    }

    #[test]
    fn everything_else_stays() {
        for template in [
            "",
            "{{ generation }} generation",
            "{% if generation %}x{% endif %}",
            "{% set generation = 1 %}",
            "{% generation",
            "{%",
            "{%%}{%-%}{%--%}",
            "{# {% #} é 🙂 {{ '{%' }}",
            "{% generations %}",
        ] {
            assert_eq!(without_generation(template), template);
        }
    }
}
