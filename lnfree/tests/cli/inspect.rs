//! `inspect`, and `export` of whatever it finds to be without LN.

use serde_json::Value;

use super::{Place, common, strs};

fn inspected(place: &Place, model: &str) -> Value {
    serde_json::from_str(&place.ok(&["inspect", model, "--json"])).unwrap()
}

#[test]
fn what_a_model_is_and_what_loads_it() {
    let place = Place::new();
    let path = |name: &str| common::vector(name).display().to_string();
    let step60 = path("checkpoint/step60");
    for format in ["folded", "identity"] {
        place.ok(&["export", &step60, "--format", format, "--out", format, "--device", "cpu"]);
    }
    let transformers = |found: &Value| {
        let tools = found["tools"].as_array().unwrap();
        tools.iter().find(|tool| tool["tool"] == "transformers").unwrap()["loads"].as_bool().unwrap()
    };
    for (model, what, format, loads) in [
        ("nano".to_string(), "original", "transformers", true),
        ("nano_vanilla200".into(), "vanilla", "transformers", true),
        ("nano_LNFree200".into(), "identity", "identity", true),
        (path("tiny-a"), "with_ln", "transformers", true),
        (path("checkpoint/step30"), "half_removed", "checkpoint", false),
        (step60, "checkpoint", "checkpoint", false),
        (path("exported_noln"), "scaled", "scaled", true),
        ("folded".into(), "folded", "folded", false),
        ("identity".into(), "identity", "identity", true),
    ] {
        let found = inspected(&place, &model);
        assert_eq!((&found["what"], &found["format"]), (&what.into(), &format.into()), "{model}");
        assert_eq!(transformers(&found), loads, "{model}: {found}");
        assert!(found["evidence"].as_array().unwrap().len() >= 3, "{found}");
        assert_eq!(found["dtype"], if model.starts_with("nano") { "float16" } else { "float32" });
    }
    // The count is of what is there: an unembedding of its own, LNs where they are.
    let count = |model: &str| inspected(&place, model)["parameters"].as_u64().unwrap();
    let tiny = common::vector("tiny-a").display().to_string();
    assert_eq!(count("identity"), count(&tiny) + 256 * 64);
    assert_eq!(count("folded"), count(&tiny) + 256 * 64 - 7 * 2 * 64);
    let text = place.ok(&["inspect", "identity"]);
    for words in ["identity: without LN", "32768 = 2^15", "from_pretrained", "evidence"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let half = place.ok(&["inspect", &path("checkpoint/step30")]);
    assert!(half.contains("of 10 sites divide by a constant"), "{half}");
}

#[test]
fn a_config_that_was_written_over_is_said() {
    let place = Place::new();
    let checkpoint = common::vector("checkpoint/step60").display().to_string();
    place.ok(&["export", &checkpoint, "--out", "m", "--device", "cpu"]);
    let config = place.text("m/config.json").replace("1073741824.0", "1e-05");
    std::fs::write(place.path("m/config.json"), config).unwrap();
    let found = inspected(&place, "m");
    assert_eq!(found["what"], "written_over");
    assert!(found["tools"].as_array().unwrap().iter().all(|tool| tool["loads"] == false), "{found}");
    place.fails(&["eval", "-m", "m", "-d", "tokens.arrow"], &["m: its LN weights", "layer_norm_epsilon"]);
}

#[test]
fn what_is_no_model_is_refused_in_one_line() {
    let place = Place::new();
    std::fs::create_dir(place.path("empty")).unwrap();
    place.fails(&["inspect", "nowhere"], &["nowhere"]);
    place.fails(&["inspect", "empty"], &["config.json"]);
    place.fails(&["inspect", "tokens.arrow", "--json"], &["tokens.arrow"]);
    std::fs::write(place.path("empty/config.json"), "{\"model_type\": \"llama\"}").unwrap();
    place.fails(&["inspect", "empty"], &["llama", "gpt2"]);
}

#[test]
fn runs_names_and_exports_of_others_become_identity_by_default() {
    let place = Place::new();
    place.ok(&strs(&place.train("run", &["--set", "norm.special_std=false"])));
    let scaled = common::vector("exported_noln").display().to_string();
    place.ok(&["export", "run", "--format", "folded", "--out", "folded", "--device", "cpu"]);
    for (model, from) in [
        ("run", "checkpoint"),
        (scaled.as_str(), "scaled"),
        ("folded", "folded"),
        ("nano_LNFree200", "identity"),
    ] {
        let said = place.ok(&["export", model, "--out", "out", "--device", "cpu"]);
        assert!(said.starts_with(&format!("out (identity, from {from}): ")), "{said}");
        assert!(said.contains("logits compared") && said.contains("epsilon takes"), "{said}");
        assert_eq!(inspected(&place, "out")["what"], "identity", "{model}");
        let card = place.text("out/README.md");
        assert_eq!(card.contains("which is the same model in the format"), from != "checkpoint", "{card}");
        assert_eq!(said.contains("ln_f's shift stays"), from == "folded", "{said}");
    }
    // The embedded model's own folder has no tokenizer, and the export has.
    let card = place.text("out/README.md");
    assert!(card.contains("fine-tuning `nano` for 200 steps") && card.contains("`nano_LNFree200`"), "{card}");
    assert!(place.path("out/tokenizer.json").is_file());
    assert!(inspected(&place, "out")["tokenizer"] == true);
    let generate = ["generate", "-p", "The", "-n", "5", "-t", "0", "--device", "cpu", "-m"];
    let text = place.ok(&[&generate[..], &["out"]].concat());
    let named = ["nano_LNFree200", "--tokenizer", "nano"];
    assert_eq!(place.ok(&[&generate[..], &named].concat()), text);
    place.fails(&[&generate[..], &["nano_LNFree200"]].concat(), &["--tokenizer"]);
    place.fails(&["export", "nano", "--out", "no", "--device", "cpu"], &["real LayerNorm"]);
    assert!(!place.path("no").exists());
}
