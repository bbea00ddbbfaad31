//! Pairs of prompts that differ in one thing, such as indirect object identification.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tch::{Device, Tensor};

use crate::data::Tokenizer;
use crate::{Error, Result};

/// Sentences of Wang et al. 2022 ("Interpretability in the Wild", arXiv 2211.00593, appendix E), `[A]` and
/// `[B]` being the names in the order in which they are first said and `[S]` the one that is said again.
pub const TEMPLATES: [&str; 8] = [
    "When [A] and [B] went to the [PLACE], [S] gave a [OBJECT] to",
    "Then, [A] and [B] went to the [PLACE]. [S] gave a [OBJECT] to",
    "Then, [A] and [B] had a lot of fun at the [PLACE]. [S] gave a [OBJECT] to",
    "Then, [A] and [B] were working at the [PLACE]. [S] decided to give a [OBJECT] to",
    "Then, [A] and [B] were thinking about going to the [PLACE]. [S] wanted to give a [OBJECT] to",
    "While [A] and [B] were working at the [PLACE], [S] gave a [OBJECT] to",
    "After [A] and [B] went to the [PLACE], [S] gave a [OBJECT] to",
    "Friends [A] and [B] found a [OBJECT] at the [PLACE]. [S] gave it to",
];

/// Words that are put into a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// Names, two or more.
    pub names: Vec<String>,
    /// Places, without article.
    pub places: Vec<String>,
    /// Things that can be given, without article.
    pub objects: Vec<String>,
}

impl Default for Words {
    /// Of Wang et al. 2022: single tokens in GPT-2.
    fn default() -> Self {
        let words = |text: &str| text.split(' ').map(String::from).collect();
        Self {
            names: words(
                "Michael Christopher Jessica Matthew Ashley Jennifer Joshua Amanda Daniel David James Robert \
                 John Joseph Andrew Ryan Brandon Jason Justin Sarah William Jonathan Stephanie Brian Nicole \
                 Nicholas Anthony Heather Eric Elizabeth Adam Megan Melissa Kevin Steven Thomas Timothy \
                 Christina Kyle Rachel Laura Lauren Amber Brittany Danielle Richard Kimberly Jeffrey Amy \
                 Crystal Michelle Tiffany Jeremy Benjamin Mark Emily Aaron Charles Rebecca Jacob Stephen \
                 Patrick Sean Erin Jamie Kelly Samantha Nathan Sara Dustin Paul Angela Tyler Scott Andrea \
                 Gregory Mary Lisa Kenneth Bryan Jose Alexander Jesse Katie Shannon Vanessa Christine Alicia \
                 Cody Allison Bradley Samuel",
            ),
            places: words("store garden restaurant school hospital office house station"),
            objects: words("ring kiss bone basketball computer necklace drink snack"),
        }
    }
}

impl Words {
    /// Those of them that are single tokens of `tokenizer` after a space.
    ///
    /// # Errors
    /// If fewer than two names, or no place or no object, are left: the message names a word that is not.
    pub fn single_in(&self, tokenizer: &Tokenizer) -> Result<Self> {
        let kept = |words: &[String], what: &str, least: usize| -> Result<Vec<String>> {
            let mut kept = Vec::new();
            let mut refused = None;
            for word in words {
                match single(tokenizer, word) {
                    Ok(_) => kept.push(word.clone()),
                    Err(error) => refused = Some(error),
                }
            }
            match refused {
                _ if kept.len() >= least => Ok(kept),
                Some(error) => Err(Error::invalid(format!(
                    "of {} {what} {} are single tokens: {error}",
                    words.len(),
                    kept.len()
                ))),
                None => Err(Error::invalid(format!("{least} {what} are needed, not {}", words.len()))),
            }
        };
        Ok(Self {
            names: kept(&self.names, "names", 2)?,
            places: kept(&self.places, "places", 1)?,
            objects: kept(&self.objects, "objects", 1)?,
        })
    }

    /// # Errors
    /// If a word is not a single token of `tokenizer`, by name, or there are too few.
    fn check(&self, tokenizer: &Tokenizer) -> Result<()> {
        for word in self.names.iter().chain(&self.places).chain(&self.objects) {
            single(tokenizer, word)?;
        }
        if self.names.len() < 2 || self.places.is_empty() || self.objects.is_empty() {
            return Err(Error::invalid("two names, a place and an object are needed at least"));
        }
        Ok(())
    }
}

/// The token of a word after a space.
///
/// # Errors
/// If it is more than one.
fn single(tokenizer: &Tokenizer, word: &str) -> Result<i64> {
    match tokenizer.encode(&format!(" {word}"))?.as_slice() {
        &[id] => Ok(i64::from(id)),
        ids => Err(Error::invalid(format!("` {word}` is {} tokens, not one", ids.len()))),
    }
}

/// Clean prompts, the corrupted prompt of each, and their answers.
#[derive(Debug)]
pub struct Prompts {
    /// int64 `[n, pos]` on the CPU.
    pub clean: Tensor,
    /// int64 `[n, pos]` on the CPU.
    pub corrupted: Tensor,
    /// Right and wrong answer of the clean prompt, int64 `[n, 2]` on the CPU. What is measured is most often
    /// the difference of their logits at the last position.
    pub answers: Tensor,
    /// Whether position 0 is a token that begins a text. Tokenizers of GPT-2 add none.
    pub starts_with_bos: bool,
}

impl Prompts {
    /// Of one's own texts; `answers` are right and wrong next words with the space before them, if there is
    /// one.
    ///
    /// # Errors
    /// If there are not as many of each, an answer is not a single token, or prompts are of different
    /// lengths: the message names the text.
    pub fn new<S: AsRef<str>>(
        tokenizer: &Tokenizer,
        clean: &[S],
        corrupted: &[S],
        answers: &[[S; 2]],
    ) -> Result<Self> {
        let n = clean.len();
        if n == 0 || corrupted.len() != n || answers.len() != n {
            return Err(Error::invalid(format!(
                "{n} clean prompts, {} corrupted ones and {} pairs of answers do not belong together",
                corrupted.len(),
                answers.len()
            )));
        }
        let mut ids = Vec::with_capacity(2 * n);
        let mut pos = None;
        for text in clean.iter().chain(corrupted) {
            let text = text.as_ref();
            let of_it: Vec<i64> = tokenizer.encode(text)?.into_iter().map(i64::from).collect();
            let pos = *pos.get_or_insert(of_it.len());
            if of_it.is_empty() || of_it.len() != pos {
                let len = of_it.len();
                return Err(Error::invalid(format!(
                    "`{text}` is {len} tokens and the first prompt {pos}: prompts of one length are needed"
                )));
            }
            ids.extend(of_it);
        }
        let mut pairs = Vec::with_capacity(2 * n);
        for answer in answers.iter().flatten() {
            let answer = answer.as_ref();
            match tokenizer.encode(answer)?.as_slice() {
                &[id] => pairs.push(i64::from(id)),
                ids => {
                    let len = ids.len();
                    return Err(Error::invalid(format!("the answer `{answer}` is {len} tokens, not one")));
                }
            }
        }
        let n = n as i64;
        let ids = Tensor::f_from_slice(&ids)?.f_view([2, n, -1])?;
        let starts_with_bos = ids.f_select(-1, 0)?.f_eq(i64::from(tokenizer.eot_id()))?.f_all()?;
        Ok(Self {
            clean: ids.f_select(0, 0)?,
            corrupted: ids.f_select(0, 1)?,
            answers: Tensor::f_from_slice(&pairs)?.f_view([n, 2])?,
            starts_with_bos: bool::try_from(starts_with_bos)?,
        })
    }

    /// The same with `token` before each, most often end-of-text.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn after_token(&self, token: u32) -> Result<Self> {
        let n = self.clean.size()[0];
        let first = Tensor::f_full([n, 1], i64::from(token), (tch::Kind::Int64, self.clean.device()))?;
        Ok(Self {
            clean: Tensor::f_cat(&[&first, &self.clean], 1)?,
            corrupted: Tensor::f_cat(&[&first, &self.corrupted], 1)?,
            answers: self.answers.shallow_clone(),
            starts_with_bos: true,
        })
    }

    /// The same on a device.
    ///
    /// # Errors
    /// If libtorch fails.
    pub fn to_device(&self, device: Device) -> Result<Self> {
        Ok(Self {
            clean: self.clean.f_to_device(device)?,
            corrupted: self.corrupted.f_to_device(device)?,
            answers: self.answers.f_to_device(device)?,
            starts_with_bos: self.starts_with_bos,
        })
    }
}

/// `n` prompts of indirect object identification (Wang et al. 2022) by the first of the [`TEMPLATES`] and
/// the default [`Words`], as far as they are single tokens, drawn from `seed`; see [`prompts_of`].
///
/// # Errors
/// If too few of the words are single tokens of `tokenizer`, and as [`prompts_of`].
pub fn prompts(tokenizer: &Tokenizer, n: usize, seed: u64) -> Result<Prompts> {
    let advised = |error| Error::invalid(format!("{error}; give Words of your own to prompts_of"));
    let words = Words::default().single_in(tokenizer).map_err(advised)?;
    prompts_of(tokenizer, TEMPLATES[0], &words, n, seed)
}

/// `n` prompts by a template, one of [`TEMPLATES`] or one's own with the same marks, by turns BABA (the one
/// who gives is said first) and ABBA, drawn from `seed`.
///
/// The corrupted prompt of each is the same with the other of the two giving, as in the paper's code: right
/// and wrong answer change places. Right is the name that is said once.
///
/// # Errors
/// If a word is not a single token, or the template lacks a mark: the message names it.
pub fn prompts_of(
    tokenizer: &Tokenizer,
    template: &str,
    words: &Words,
    n: usize,
    seed: u64,
) -> Result<Prompts> {
    words.check(tokenizer)?;
    if let Some(mark) = ["[A]", "[B]", "[S]"].into_iter().find(|mark| !template.contains(mark)) {
        return Err(Error::invalid(format!("the template `{template}` has no {mark}")));
    }
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let (mut clean, mut corrupted, mut answers) = (Vec::new(), Vec::new(), Vec::new());
    let mut names: Vec<&String> = words.names.iter().collect();
    for i in 0..n {
        let (pair, _) = names.partial_shuffle(&mut random, 2);
        let (a, b) = (pair[0], pair[1]);
        let place = &words.places[random.random_range(0..words.places.len())];
        let object = &words.objects[random.random_range(0..words.objects.len())];
        let with = |subject: &str| {
            let text = template.replace("[A]", a).replace("[B]", b).replace("[S]", subject);
            text.replace("[PLACE]", place).replace("[OBJECT]", object)
        };
        let (subject, other) = if i % 2 == 0 { (a, b) } else { (b, a) };
        clean.push(with(subject));
        corrupted.push(with(other));
        answers.push([format!(" {other}"), format!(" {subject}")]);
    }
    Prompts::new(tokenizer, &clean, &corrupted, &answers)
}
