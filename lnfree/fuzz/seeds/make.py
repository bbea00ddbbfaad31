#!/usr/bin/env python3
"""Writes the seeds that are made by other programs: small valid inputs of every target, one file an input.

    python3 make.py     (torch, safetensors, pyarrow, zstandard)

Seeds called `refused-*` are refused, all others accepted. Files called `found-*` are inputs that failed once; nothing writes them.
"""
import collections, gzip, io, json, pathlib, struct, tomllib, zipfile

import pyarrow as pa, pyarrow.parquet as pq, torch
from safetensors.torch import save

HERE = pathlib.Path(__file__).parent
SEP = b"\n%%%%\n"


def put(target, name, content):
    if isinstance(content, str):
        content = content.encode()
    (HERE / target).mkdir(exist_ok=True)
    (HERE / target / name).write_bytes(content)


def j(value):
    return json.dumps(value, separators=(",", ":")).encode()


def header(file):
    (n,) = struct.unpack("<Q", file[:8])
    return file[8 : 8 + n].rstrip()


# --- configs
ROOT = HERE.parent.parent.parent
for name in ["nano", "nano_pretrain"]:
    text = "\n".join(l for l in (ROOT / f"configs/{name}.toml").read_text().splitlines() if l and l[0] != "#")
    put("config", name, text.encode() + SEP + b"train.max_steps=700\ndata.train=x\nnorm.momentum = 0.5")
put("config", "small", b'model={name="m",n_layer=1}\ntrain={batch_size=1,max_steps=1,learning_rate=1,min_lr=0,warmup_steps=0}\n'
    b'data={train="t",block_size=2}\n' + SEP)
MODEL = dict(model_type="gpt2", activation_function="gelu_new", n_layer=1, n_head=2, n_embd=4, n_positions=8, vocab_size=16,
             bos_token_id=15, eos_token_id=15, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
put("model_config", "small", j(MODEL))
put("model_config", "full", j(MODEL | dict(n_ctx=8, n_inner=None, architectures=["GPT2LMHeadModel"], eos_token_id=[15, 3], pad_token_id=0,
    layer_norm_epsilon=1e-5, initializer_range=0.02, tie_word_embeddings=True, torch_dtype="float16", scale_attn_weights=True,
    reorder_and_upcast_attn=False, summary_type="cls_index", task_specific_params={"a": {"b": 1}}))
    + SEP + j(dict(eos_token_id=[15, 3], bos_token_id=15, transformers_version="4.57.0")))

# --- weights
small = {"wte.weight": torch.ones(2, 2), "h.0.attn.bias": torch.ones(1, 1, 2, 2, dtype=torch.bool), "n": torch.tensor(3),
         "ln_f.bias": torch.ones(2, dtype=torch.bfloat16), "empty": torch.ones(0, 3)}
put("safetensors", "small", save(small))
put("safetensors", "metadata", save({"transformer.a": torch.ones(2)}, {"format": "pt"}))
pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"ab" * 32 + b"\nsize 548105171\n"
put("safetensors", "refused-lfs-pointer", pointer)
put("torch", "refused-lfs-pointer", pointer)
put("safetensors_header", "small", header(save(small)))
put("safetensors_header", "kinds", header(save({str(k): torch.ones(2, dtype=k) for k in [torch.float16, torch.float64, torch.int8,
    torch.uint8, torch.int16, torch.int32, torch.float8_e4m3fn, torch.complex64]})))
put("index", "two", j(dict(metadata=dict(total_size=16), weight_map=dict(a="model-00001-of-00002.safetensors",
    b="model-00002-of-00002.safetensors"))))


def saved(value, **how):
    out = io.BytesIO()
    torch.save(value, out, **how)
    return out.getvalue()


shared = torch.ones(4, 2)
state = {"wte.weight": shared, "lm_head.weight": shared, "t": shared.t(), "p": torch.nn.Parameter(torch.zeros(2)),
         "b": torch.tensor([True]), "h": torch.ones(2, dtype=torch.bfloat16), "i": torch.arange(3)}
put("torch", "zip", saved(state))
put("torch", "legacy", saved(state, _use_new_zipfile_serialization=False))
put("torch", "protocol4", saved({"a": torch.ones(1)}, pickle_protocol=4))


def pickled(file):
    archive = zipfile.ZipFile(io.BytesIO(file))
    return archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))


one = {"wte.weight": torch.ones(4, 4), "ln_f.bias": torch.ones(8, dtype=torch.int64)}
put("pickle", "two", pickled(saved(one)))
put("pickle", "ordered", pickled(saved(collections.OrderedDict(one))))
put("pickle", "protocol4", pickled(saved(one, pickle_protocol=4)))
sums = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d  file\n"
put("checksums", "one", sums)
put("optimizer", "two", header(save({f"{k}.{p}": torch.ones(*s) for p, s in [("wte.weight", (2, 2)), ("ln_f.bias", (2,))]
    for k in ["exp_avg", "exp_avg_sq"]})))

config = tomllib.loads((ROOT / "configs/nano.toml").read_text())
trainer = dict(lnfree="0.1.0", mode="without_ln", step=2, optimizer_steps=2, data_position=64, data_fingerprint="ab", tokens=8192,
    base_model="data/nano", config=config)
put("trainer", "nano", j(trainer))

e, m, v, p = 4, 16, 16, 8
block = dict(zip(["ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias",
    "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight", "mlp.c_proj.bias"],
    [(e,), (e,), (e, 3 * e), (3 * e,), (e, e), (e,), (e,), (e,), (e, m), (m,), (m, e), (e,)]))
weights = {"wte.weight": (v, e), "wpe.weight": (p, e), "ln_f.weight": (e,), "ln_f.bias": (e,)} | {"h.0." + k: s for k, s in block.items()}
plain = {k: torch.ones(*s) for k, s in weights.items()}
ln = {}
for name in ["h.0.ln_1", "h.0.ln_2", "ln_f"]:
    ln |= {f"{name}.{f}": torch.tensor(True) for f in ["is_fake", "attn_v_is_fake", "bos_special_treatment"]}
    ln[f"{name}.grad_acc_steps"] = torch.tensor(1)
    ln |= {f"{name}.{f}": torch.tensor(1.0) for f in ["momentum", "real_average_std", "real_bos_std"]}
    ln |= {f"{name}.{f}": torch.ones(p) for f in ["average_std_buffer", "bos_std_buffer"]}
put("checkpoint", "plain", j(MODEL) + SEP + header(save(plain)))
put("checkpoint", "fake", j(MODEL) + SEP + header(save(plain | ln)) + SEP + j(trainer))

# --- tables
ids = pa.table({"input_ids": pa.array([[1, 2, 3], [4, 5, 6]], pa.list_(pa.int32(), 3))})
lists = pa.table({"input_ids": pa.array([[1, 2], [3, 4, 5], []], pa.large_list(pa.uint16())), "attention_mask": [[1], [1], []]})
texts = pa.table({"text": ["one", "two\n"], "meta": [{"pile_set_name": "Pile-CC"}, {"pile_set_name": "Books3"}]})
views = pa.table({"text": pa.array(["a", "b" * 20], pa.string_view())})
named = pa.table({"text": pa.array(["a", "b", "a"]).dictionary_encode()})
losses = pa.table({"sequence": pa.array([0, 1], pa.uint64()), "loss": pa.array([1.5, 2.5], pa.float64()),
    "n_tokens": pa.array([3, 3], pa.uint64())})


def arrow(table, stream=False, compression=None):
    out = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(out, table.schema, options=options) as writer:
        writer.write_table(table)
    return out.getvalue()


def parquet(table, **how):
    out = io.BytesIO()
    pq.write_table(table, out, **({"compression": "none", "store_schema": False} | how))
    return out.getvalue()


for name, table in [("fixed", ids), ("lists", lists)]:
    put("arrow_tokens", name + "_file", arrow(table))
    put("arrow_tokens", name + "_stream", arrow(table, True))
    put("parquet_tokens", name, parquet(table))
    put("parquet_tokens", name + "_zstd", parquet(table, compression="zstd", store_schema=True, row_group_size=1))
put("parquet_tokens", "v2_snappy", parquet(lists, compression="snappy", data_page_version="2.0", use_dictionary=False))
put("parquet_tokens", "delta", parquet(lists, use_dictionary=False, column_encoding="DELTA_BINARY_PACKED"))
for name, table in [("texts", texts), ("views", views), ("dictionary", named)]:
    put("arrow_text", name + "_file", arrow(table))
    put("arrow_text", name + "_stream", arrow(table, True))
for name, table in [("texts", texts), ("dictionary", named)]:
    put("parquet_text", name, parquet(table))
    put("parquet_text", name + "_snappy", parquet(table, compression="snappy"))
# Long enough that the buffers are smaller compressed: others are stored as they are.
many = pa.table({"text": ["the same words again"] * 40})
row = pa.table({"input_ids": pa.array([[7] * 40] * 4, pa.list_(pa.int32(), 40))})
for codec in ["lz4", "zstd"]:
    put("arrow_tokens", f"{codec}_stream", arrow(row, True, codec))
    put("arrow_tokens", f"{codec}_file", arrow(row, False, codec))
    put("arrow_text", f"{codec}_stream", arrow(many, True, codec))
    put("arrow_text", f"{codec}_file", arrow(pa.table({"text": many["text"].dictionary_encode()}), False, codec))
    put("parquet_tokens", codec, parquet(row, compression=codec, use_dictionary=True))
    put("parquet_text", codec, parquet(many, compression=codec, use_dictionary=False))
for codec in ["gzip", "brotli"]:
    put("parquet_text", codec, parquet(many, compression=codec))
put("parquet_text", "delta", parquet(pa.table({"text": ["ab", "abc", "b"]}), use_dictionary=False, column_encoding="DELTA_BYTE_ARRAY"))
put("arrow_losses", "two", arrow(losses))
# Rows without tokens take no bytes: there can be any number of them.
nothing = pa.table({"input_ids": pa.array([[]] * 0x1234567, pa.list_(pa.int32(), 0))})
for kind, stream in [("file", False), ("stream", True)]:
    endless = arrow(nothing, stream).replace(struct.pack("<q", 0x1234567), struct.pack("<q", 1 << 60))
    put("arrow_tokens", f"refused-endless-{kind}", endless)

# --- texts
lines = b'{"text": "It\'s one.", "meta": {"pile_set_name": "Pile-CC"}}\n\n{"text": "\\u00e9\\n"}\n'
numbers = b'{"input_ids": [1, 2, 3]}\n{"text": "a", "n": NaN}\n'
put("jsonl", "text", lines)
put("jsonl", "ids", numbers)
put("jsonl", "bom", b"\xef\xbb\xbf" + lines)
put("jsonl_gz", "text", gzip.compress(lines, mtime=0))
put("jsonl_gz", "two_members", gzip.compress(lines, mtime=0) + gzip.compress(lines, mtime=0) + b"\0" * 8)
try:
    import zstandard as z
    put("jsonl_zst", "text", z.ZstdCompressor().compress(lines))
    big = z.ZstdCompressionParameters(window_log=27, write_content_size=0)
    put("jsonl_zst", "window", z.ZstdCompressor(compression_params=big).compress(lines))
except ImportError:
    codec = pa.Codec("zstd")
    put("jsonl_zst", "text", bytes(codec.compress(lines)))
    # The same frame with a window of its own and no content size: raw blocks.
    frame = b"\x28\xb5\x2f\xfd" + b"\x00" + bytes([17 << 3])
    put("jsonl_zst", "window", frame + struct.pack("<I", len(lines) << 3 | 1)[:3] + lines)
put("txt", "text", "It's one é.\n")

# --- tokenizers
alphabet = [chr(c) for c in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
merges = [("a", "a"), ("t", "e"), ("Ġ", "a"), ("aa", "aa")]
vocab = {t: i for i, t in enumerate(alphabet + ["".join(m) for m in merges] + ["<|endoftext|>"])}
few = {t: i for i, t in enumerate(["a", "t", "e", "Ġ", "aa", "te", "<|endoftext|>"])}
eot = len(vocab) - 1
bl = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def tokenizer(vocab, **more):
    added = {"id": vocab["<|endoftext|>"], "content": "<|endoftext|>", "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
    return j({"version": "1.0", "truncation": None, "padding": None, "added_tokens": [added], "normalizer": None, "pre_tokenizer": bl,
        "post_processor": bl, "decoder": bl, "model": {"type": "BPE", "dropout": None, "unk_token": None,
        "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
        "vocab": vocab, "merges": [list(m) for m in merges if "".join(m) in vocab and m[0] in vocab and m[1] in vocab]}} | more)


settings = j({"add_prefix_space": False, "tokenizer_class": "GPT2Tokenizer", "bos_token": "<|endoftext|>"})
put("tokenizer_json", "gpt2", tokenizer(vocab) + SEP + settings)
put("tokenizer_json", "few", tokenizer(few))
put("tokenizer_json", "settings", tokenizer(few, normalizer={"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Replace",
    "pattern": {"String": "a"}, "content": "b"}]}, pre_tokenizer={"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern":
    {"Regex": "\\s+(?!\\S)|\\s+"}, "behavior": "Isolated", "invert": False}, bl]}, truncation={"direction": "Right", "max_length": 4,
    "strategy": "LongestFirst", "stride": 0}, padding={"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None,
    "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}))
text_merges = "#version: 0.2\n" + "".join(" ".join(m) + "\n" for m in merges)
put("tokenizer_files", "gpt2", SEP.join([j(vocab), text_merges.encode(), settings, j({"eos_token": "<|endoftext|>"})]))
put("tokenizer_files", "few", SEP.join([j(few), b"#version: 0.2\na a\nt e\n"]))

# --- records
step = dict(step=0, loss=3.5, ce_loss=3.4, aux_loss=0.1, lr=1e-4, grad_norm=1.0, tokens=10, tokens_per_s=5.0, stds={"h.0.ln_1": 1.5, "ln_f": 2})
log = [step, dict(event="remove", step=1, kind="ln2", layer=0), step | dict(step=1, loss=None), dict(event="eval", step=1, loss=3.2),
       dict(event="remove", step=2, kind="lnf", layer=None), dict(event="saved", step=2)]
log = b"".join(j(l) + b"\n" for l in log)
put("metrics", "log", log)
put("metrics", "cut", log[:-9])
about = dict(mode="without_ln", model="nano", started="2026-01-01T00:00:00Z", lnfree="0.1.0", device="cpu", data="nano-train")
put("run", "whole", SEP.join([j(about), b"[model]\nname = 'nano'\n", log]))
put("eval", "full", j(dict(label="a", model="m", format="folded", dataset="d/e", n_sequences=2, n_tokens=6, mean=3.5, median=None,
    ranges={"95": [0.1, 2.0], "99.9": [None, 3]}, mean_interval=[3, 4], trimmed_mean=3.4, entropy=1.0, calibration_error=0.1, accuracy=0.5,
    by_position=[{"from": 0, "to": 1, "mean": None}], worst=[dict(sequence=1, mean=4.0, peak=9.0, peak_position=3, text="x")],
    dtype="float32", device="cpu", batch_size=8, max_sequences=10, data_sha256="ab", seconds=1.0, tokens_per_s=6.0, peak_memory=1)))
hooks = {f"blocks.0.hook_resid_{k}": 1.5 for k in ["pre", "mid", "post"]}
put("stds", "one", j(dict(std_dict=hooks, std_bos_dict=hooks)))
put("study", "one", j(dict(suite="nano", limit=10, batch_size=8, dtype="float32")))
record = dict(task="train", ln="real", device="cpu", dtype="float32", batch_size=2, accumulation=1, seq=8, prompt=0, checkpointing=False,
    shape=[1, 2, 4, 16], aux_weight=0.0, median_step_s=0.5, min_step_s=0.4, tokens_per_s=32.0, flop_per_s=1e9, matrix_peak=1e10,
    share_of_peak=0.1, peak_gib=0.5, planned_gib=0.4, loss=2.7)
bench = [dict(program="lnfree", size="nano", record=record), dict(program="PyTorch", size="nano", record=record | dict(tokens_per_s=10.0)),
    dict(program="PyTorch", size="gpt2-xl", error=dict(task="train", ln="real", dtype="float32", batch_size=2, why="no memory"))]
put("bench", "three", b"".join(j(b) + b"\n" for b in bench))
put("provenance", "one", j(dict(dataset="d", source="s", split="train", max_sequences=None, block_size=8, tokenizer="gpt2", scheme=2,
    commit="ab", tokenizer_sha256=None, recipe="r", files=["a"], documents=1, sequences=2, tokens=16, dropped=0, lnfree="0.1.0")))

# --- answers of a hub
sha = "0123456789abcdef0123456789abcdef01234567"
listing = j(dict(sha=sha, id="some/model", siblings=[dict(rfilename=f) for f in ["config.json", "model.safetensors", "tokenizer.json"]]))
put("hub_listing", "body", listing)
put("hub_listing", "chunked", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(listing), listing))
put("hub_listing", "moved", b"HTTP/1.1 307 Temporary Redirect\r\nLocation: /api/models/other\r\nContent-Length: 0\r\n\r\n" + SEP + listing)
put("hub_listing", "refused-gated", b"HTTP/1.1 403 Forbidden\r\nX-Error-Code: GatedRepo\r\nX-Error-Message: Access is restricted\r\nContent-Length: 0\r\n\r\n")
put("hub_head", "large", b'HTTP/1.1 302 Found\r\nX-Linked-Etag: "ab12"\r\nX-Linked-Size: 99\r\nLocation: /cdn\r\nContent-Length: 0\r\n\r\n')
put("hub_head", "small", b"HTTP/1.1 307 Moved\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n" + SEP
    + b'HTTP/1.1 200 OK\r\nETag: W/"cd34"\r\nContent-Length: 12\r\nX-Repo-Commit: ' + sha.encode() + b"\r\n\r\n")
put("hub_head", "refused-error", b"HTTP/1.1 404 Not Found\r\nX-Error-Code: EntryNotFound\r\nContent-Length: 0\r\n\r\n")
put("hub_part", "part", b'HTTP/1.1 206 Partial Content\r\nETag: "e"\r\nContent-Range: bytes 2-5/8\r\nContent-Length: 4\r\n\r\nabcd')
put("hub_part", "moved", b'HTTP/1.1 302 Found\r\nX-Linked-Etag: "e"\r\nLocation: /cdn\r\nContent-Length: 0\r\n\r\n' + SEP
    + b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 2-5/8\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")
put("hub_part", "refused-whole", b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 8\r\n\r\nabcdefgh')
modes = j(dict(files=[dict(path="config.json", uploadMode="lfs", shouldIgnore=False, oid=None)]))
oid = "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
go = dict(href="https://huggingface.co/put", header={"chunk_size": "1", "00001": "https://a/1", "00002": "https://a/2"})
put("hub_upload", "parts", modes + SEP + j(dict(objects=[dict(oid=oid, size=2, actions=dict(upload=go, verify=dict(href="/v")))])))
put("hub_upload", "there", modes + SEP + j(dict(objects=[dict(oid=oid, size=2)])))
put("hub_upload", "refused-422", modes + SEP + j(dict(objects=[dict(oid=oid, error=dict(code=422, message="no\nroom"))])))
put("hub_upload", "refused-trouble", b"HTTP/1.1 500 Oh\r\nContent-Length: 19\r\n\r\n{\"error\":\"trouble\"}")
put("hub_index", "two", j(dict(metadata=dict(total_size=16), weight_map=dict(a="model-00001-of-00002.safetensors", b="b.bin"))))
