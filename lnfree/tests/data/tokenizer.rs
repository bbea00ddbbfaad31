//! Tokenizers: training, loading, the ids that Python gets.

use lnfree::data::tokenizer::{END_OF_TEXT, Tokenizer, train_bpe};
use lnfree::{Error, data::text::documents};
use sha2::{Digest, Sha256};

use super::{data, message, nano};

/// The ids that Python's tokenizers 0.23.3 and transformers 5.23.0 (`AutoTokenizer` and `GPT2TokenizerFast`)
/// give with the files of `data/nano`:
///
/// ```python
/// AutoTokenizer.from_pretrained("data/nano")(text)["input_ids"]
/// ```
#[test]
fn ids_are_those_of_hugging_face() {
    let text = "Hello  world\n\n\tIt's 1,000 naïve 日本語 🙂 <|endoftext|> x  ";
    let ids = [
        39, 1316, 78, 220, 675, 198, 198, 197, 2680, 592, 439, 11, 613, 298, 64, 127, 107, 306, 220, 162,
        245, 98, 162, 250, 105, 164, 103, 252, 220, 172, 253, 247, 224, 220, 4095, 220, 87, 220, 220,
    ];
    let nano = nano();
    assert_eq!(nano.encode(text).unwrap(), ids);
    assert_eq!(nano.decode(&ids).unwrap(), text);
    assert_eq!((nano.vocab_size(), nano.eot_id()), (4096, 4095));
}

/// Counts of tokens and the SHA-256 over all ids as little-endian u32, computed by Python's tokenizers
/// 0.23.3: of every text, `b"".join(i.to_bytes(4, "little") for i in tokenizer.encode(text).ids)`.
#[test]
fn whole_texts_match_hugging_face() {
    let nano = nano();
    for (name, tokens, start) in [
        ("sotu-val.parquet", 108_762, "3f13f01eb386cc85"),
        ("moby-dick.parquet", 392_472, "e7da38268e946bff"),
    ] {
        let texts: Vec<String> = documents(&data(name)).unwrap().collect::<Result<_, _>>().unwrap();
        let (mut hash, mut count) = (Sha256::new(), 0);
        for (text, ids) in texts.iter().zip(nano.encode_batch(&texts).unwrap()) {
            count += ids.len() + 1;
            ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
            assert_eq!(nano.decode(&ids).unwrap(), *text);
        }
        assert_eq!(count, tokens, "{name}");
        assert!(
            hash.finalize().iter().map(|b| format!("{b:02x}")).collect::<String>().starts_with(start),
            "{name}"
        );
    }
}

fn some_texts() -> impl Iterator<Item = lnfree::Result<String>> + Send {
    documents(&data("sotu-val.parquet")).unwrap().take(20)
}

#[test]
fn training_is_deterministic_and_lays_ids_out_as_gpt2() {
    let first = train_bpe(some_texts(), 600).unwrap();
    let again = train_bpe(some_texts(), 600).unwrap();
    assert_eq!(first.files(), again.files());
    assert_eq!((first.vocab_size(), first.eot_id()), (600, 599));
    // In GPT-2 too, id 0 is "!" and id 220 the space.
    assert_eq!(first.encode("! ").unwrap(), [0, 220]);
    assert_eq!(first.encode(END_OF_TEXT).unwrap(), [599]);
    let names: Vec<&str> = first.files().iter().map(|f| f.name.as_str()).collect();
    let all =
        ["tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"];
    assert_eq!(names, all);
}

#[test]
fn every_saved_form_loads_to_the_same_tokenizer() {
    let dir = tempfile::tempdir().unwrap();
    let trained = train_bpe(some_texts(), 500).unwrap();
    trained.save(dir.path().join("whole")).unwrap();
    let whole = Tokenizer::from_dir(dir.path().join("whole")).unwrap();
    assert_eq!(whole.files(), trained.files());
    assert_eq!(whole.fingerprint(), trained.fingerprint());
    let json = Tokenizer::from_file(dir.path().join("whole/tokenizer.json")).unwrap();

    std::fs::remove_file(dir.path().join("whole/tokenizer.json")).unwrap();
    let parts = Tokenizer::from_dir(dir.path().join("whole")).unwrap();
    assert_eq!(parts.files().len(), 4);
    let text = "The Congress, 1862's\n\n  naïve\u{1f642}<|endoftext|>done";
    for tokenizer in [&whole, &json, &parts] {
        assert_eq!(tokenizer.encode(text).unwrap(), trained.encode(text).unwrap());
        assert_eq!(tokenizer.decode(&trained.encode(text).unwrap()).unwrap(), text);
        assert_eq!(tokenizer.vocab_size(), 500);
    }
}

#[test]
fn any_text_survives_encoding() {
    let nano = nano();
    let characters: Vec<char> = "aZ '9\n\t.é日\u{1f642}\u{0}\u{a0}<|>\u{feff}\r".chars().collect();
    let mut state = 7u64;
    for length in 0..300 {
        let text: String = (0..length)
            .map(|_| {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                characters[(state >> 33) as usize % characters.len()]
            })
            .collect();
        assert_eq!(nano.decode(&nano.encode(&text).unwrap()).unwrap(), text);
    }
}

#[test]
fn padding_and_truncation_of_a_published_tokenizer_are_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let json = std::fs::read_to_string(data("nano/tokenizer.json")).unwrap();
    let mut value: serde_json::Value = serde_json::from_str(&json).unwrap();
    value["truncation"] = serde_json::json!({
        "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0,
    });
    value["padding"] = serde_json::json!({
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "!",
    });
    let path = dir.path().join("tokenizer.json");
    std::fs::write(&path, value.to_string()).unwrap();
    let text = "four score and seven years ago";
    assert_eq!(Tokenizer::from_file(&path).unwrap().encode(text).unwrap(), nano().encode(text).unwrap());
}

#[test]
fn bad_input_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    assert!(message(Tokenizer::from_dir(dir.path())).contains("no tokenizer.json"));
    assert!(message(Tokenizer::from_file(at("missing.json"))).contains("missing.json"));

    let good = std::fs::read(data("nano/tokenizer.json")).unwrap();
    for cut in [0, 1, 100, good.len() / 2, good.len() - 3] {
        std::fs::write(at("tokenizer.json"), &good[..cut]).unwrap();
        assert!(message(Tokenizer::from_dir(dir.path())).contains("not a tokenizer.json"));
    }
    let text = String::from_utf8(good).unwrap();
    std::fs::write(at("tokenizer.json"), text.replace(END_OF_TEXT, "<|end|>")).unwrap();
    assert!(message(Tokenizer::from_dir(dir.path())).contains("no <|endoftext|> token"));
    // A merge of tokens that are not there.
    std::fs::remove_file(at("tokenizer.json")).unwrap();
    std::fs::write(at("vocab.json"), r#"{"a": 0, "<|endoftext|>": 1}"#).unwrap();
    std::fs::write(at("merges.txt"), "#version: 0.2\na b\n").unwrap();
    assert!(message(Tokenizer::from_dir(dir.path())).contains("merges.txt"));
    std::fs::write(at("merges.txt"), "one\n").unwrap();
    assert!(message(Tokenizer::from_dir(dir.path())).contains("line 1"));
    std::fs::write(at("vocab.json"), r#"{"a": -1}"#).unwrap();
    assert!(message(Tokenizer::from_dir(dir.path())).contains("vocab.json"));

    assert!(message(nano().decode(&[5, 4096])).contains("4096"));
    assert!(message(train_bpe(some_texts(), 256)).contains("vocab_size"));
    let broken = some_texts().take(3).chain([Err(Error::invalid("the text broke off"))]).chain(some_texts());
    assert!(message(train_bpe(broken, 300)).contains("the text broke off"));
}
