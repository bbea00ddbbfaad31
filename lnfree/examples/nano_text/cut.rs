//! Cutting a work into documents.

use crate::sources::Work;

/// Length in bytes that a document is cut to, about: end-of-text then comes as often as in web text.
const DOCUMENT_BYTES: usize = 3000;
/// Paragraphs up to this long are never cut.
const PARAGRAPH_BYTES: usize = 1500;

/// Cuts a text into nearly equal documents, at ends of paragraphs or, inside long paragraphs, of sentences.
pub fn cut(work: &Work) -> Vec<String> {
    // Sentences of one paragraph are joined by spaces, paragraphs by the joint of the work.
    let pieces: Vec<(&str, &str)> = work
        .paragraphs
        .iter()
        .flat_map(|paragraph| {
            let pieces = pieces_of(paragraph);
            let last = pieces.len() - 1;
            pieces
                .into_iter()
                .enumerate()
                .map(move |(i, piece)| (piece, if i == last { work.joint } else { " " }))
        })
        .collect();
    let total: usize = pieces.iter().map(|(piece, _)| piece.len()).sum();
    let count = ((total + DOCUMENT_BYTES / 2) / DOCUMENT_BYTES).max(1);
    let mut documents = vec![String::new()];
    let mut done = 0;
    let mut joint = "";
    for (piece, after) in pieces {
        // The next document starts once more than half of this piece lies beyond the end due for the last
        // one.
        if done > 0 && (done + piece.len() / 2) * count >= total * documents.len() {
            documents.push(String::new());
            joint = "";
        }
        if let Some(document) = documents.last_mut() {
            document.push_str(joint);
            document.push_str(piece);
        }
        (done, joint) = (done + piece.len(), after);
    }
    documents
}

/// A paragraph as one piece, or as its sentences if it is long.
fn pieces_of(paragraph: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut start = 0;
    if paragraph.len() > PARAGRAPH_BYTES {
        for (space, _) in paragraph.match_indices(' ') {
            if ends_sentence(&paragraph[start..space], &paragraph[space + 1..]) {
                pieces.push(&paragraph[start..space]);
                start = space + 1;
            }
        }
    }
    pieces.push(&paragraph[start..]);
    pieces
}

/// Whether a sentence ends between `before` and `after`. Misses some ends, so that it hardly ever invents
/// one: titles ("Mr."), initials ("U.S.", "J.") and numbers ("No. 5") do not count.
fn ends_sentence(before: &str, after: &str) -> bool {
    let word = before.rsplit(' ').next().unwrap_or_default().trim_end_matches(['"', '\'', ')', ']']);
    let next = after.trim_start_matches(['"', '\'', '(', '[']).chars().next();
    let stem = word.trim_end_matches('.');
    let abbreviation =
        matches!(stem, "Mr" | "Mrs" | "Ms" | "Dr" | "Messrs" | "St" | "Gen" | "Capt" | "Col" | "Lt");
    let initial = stem.contains('.') || stem.chars().count() < 2;
    word.ends_with(['!', '?'])
        || (word.ends_with('.') && !abbreviation && !initial) && next.is_some_and(char::is_uppercase)
}
