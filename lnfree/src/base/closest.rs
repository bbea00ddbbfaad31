//! The name that was meant, when a finger slipped.

/// The candidate that is at most two mistakes away from `word` (one if it is short), and nearest.
pub(crate) fn closest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = if word.chars().count() < 5 { 1 } else { 2 };
    let word = word.to_lowercase();
    candidates
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= 8)
        .map(|candidate| (strsim::levenshtein(&word, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// What an error about `word` ends with: the candidate that may be meant, if one is near.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> String {
    closest(word, candidates).map_or_else(String::new, |name| format!(" (did you mean {name}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_understood_and_another_word_is_not() {
        let hint = |word: &str| did_you_mean(word, ["nano", "nano_pretrain", "gpt2-medium"].into_iter());
        assert_eq!(hint("nanp"), " (did you mean nano?)");
        assert_eq!(hint("GPT2-mediun"), " (did you mean gpt2-medium?)");
        assert_eq!(hint("nano_pretian"), " (did you mean nano_pretrain?)");
        assert_eq!(hint("medium"), "");
    }
}
