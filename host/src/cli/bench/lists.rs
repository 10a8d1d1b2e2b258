//! Lists of numbers as llama-bench takes them: `1,2,4`, `1-4`, `128-512+128`, `128-8192*2`.

/// More values than anybody waits for.
const MOST: usize = 10_000;

/// The numbers of a list, each at least `smallest`. The error continues a sentence about the list.
pub(super) fn numbers(text: &str, smallest: usize) -> Result<Vec<usize>, String> {
    let mut numbers = Vec::new();
    for item in text.split(',') {
        numbers.extend(range(item.trim()).ok_or_else(|| {
            format!("{item:?} is neither a whole number nor a range a-b, a-b+step or a-b*factor that ends")
        })?);
    }
    match numbers.iter().find(|number| **number < smallest) {
        Some(number) => Err(format!("{number} is less than {smallest}")),
        None => Ok(numbers),
    }
}

/// The numbers of one item of a list.
fn range(text: &str) -> Option<Vec<usize>> {
    let Some((first, rest)) = text.split_once('-') else { return Some(vec![text.parse().ok()?]) };
    let (last, step): (_, Box<dyn Fn(usize) -> Option<usize>>) = if let Some((last, step)) = rest.split_once('+') {
        let step: usize = step.parse().ok()?;
        (last, Box::new(move |number| number.checked_add(step)))
    } else if let Some((last, factor)) = rest.split_once('*') {
        let factor: usize = factor.parse().ok()?;
        (last, Box::new(move |number| number.checked_mul(factor)))
    } else {
        (rest, Box::new(|number| number.checked_add(1)))
    };
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    if last < first {
        return None;
    }
    let mut numbers = vec![first];
    let mut number = first;
    while let Some(next) = step(number).filter(|next| *next <= last) {
        if next <= number || numbers.len() == MOST {
            return None;
        }
        numbers.push(next);
        number = next;
    }
    Some(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_ranges() {
        assert_eq!(numbers("7", 0), Ok(vec![7]));
        assert_eq!(numbers("1, 2,4", 1), Ok(vec![1, 2, 4]));
        assert_eq!(numbers("1-3,0", 0), Ok(vec![1, 2, 3, 0]));
        assert_eq!(numbers("128-512+128", 0), Ok(vec![128, 256, 384, 512]));
        assert_eq!(numbers("128-1000*2", 0), Ok(vec![128, 256, 512]));
        assert_eq!(numbers("5-5+1", 0), Ok(vec![5]));
        assert_eq!(numbers("18446744073709551614-18446744073709551615+9", 0), Ok(vec![18_446_744_073_709_551_614]));
    }

    #[test]
    fn what_does_not_end_or_is_none() {
        for text in ["", "a", "-1", "1,", "2-1", "1-5+0", "1-5*1", "0-5*2", "1-5+", "1-5/2", "1.5", "1-99999999"] {
            let problem = numbers(text, 0).unwrap_err();
            assert!(problem.contains("a-b+step"), "{text:?}: {problem}");
        }
        assert_eq!(numbers("3,0", 1), Err("0 is less than 1".to_owned()));
    }
}
