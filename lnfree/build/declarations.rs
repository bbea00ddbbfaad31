//! The C++ declarations of what Rust calls in `native/`, made from the Rust ones.

/// A C++ header with every function of the `extern "C"` block in `source`.
///
/// # Panics
/// On a line of the block that is none of these functions' or has a type that is not known.
pub fn header(source: &str) -> String {
    let block = source.split_once("unsafe extern \"C\" {").and_then(|(_, rest)| rest.split_once("\n}"));
    let (block, _) = block.expect("an extern block");
    let lines =
        block.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.starts_with("#["));
    let text = lines.collect::<Vec<_>>().join(" ");
    let functions = text.split(';').map(str::trim).filter(|text| !text.is_empty());
    let declarations: Vec<String> = functions.map(declaration).collect();
    format!(
        "// Made by build.rs from src/base/ffi/symbols.rs.\n#pragma once\n#include <ATen/core/Tensor.h>\n#include <cstdint>\n\
         namespace lnfree {{ struct TokenSums; }}\nextern \"C\" {{\n{}\n}}\n",
        declarations.join("\n")
    )
}

/// `pub(crate) fn name(a: A, b: B) -> C` in C++.
fn declaration(function: &str) -> String {
    let parts = || {
        let (name, rest) = function.split_once("fn ")?.1.split_once('(')?;
        let (arguments, result) = rest.rsplit_once(')')?;
        Some((name, arguments, result.trim().strip_prefix("->").map_or("()", str::trim)))
    };
    let (name, arguments, result) = parts().unwrap_or_else(|| panic!("no function: {function}"));
    let arguments = arguments.split(',').map(str::trim).filter(|argument| !argument.is_empty());
    let arguments: Vec<String> = arguments
        .map(|argument| argument.split_once(':').unwrap_or_else(|| panic!("no argument: {argument}")))
        .map(|(name, kind)| format!("{} {name}", cpp(kind.trim())))
        .collect();
    format!("{} {name}({});", cpp(result), arguments.join(", "))
}

/// A type of Rust in C++.
fn cpp(kind: &str) -> String {
    if let Some(to) = kind.strip_prefix("*const ") {
        return format!("{} const *", cpp(to));
    }
    if let Some(to) = kind.strip_prefix("*mut ") {
        return format!("{} *", cpp(to));
    }
    let name = match kind {
        "C_tensor" => "at::Tensor",
        "TokenSums" => "lnfree::TokenSums",
        "c_char" => "char",
        "c_void" | "()" => "void",
        "i32" => "int32_t",
        "i64" => "int64_t",
        "f32" => "float",
        "f64" => "double",
        "bool" => "bool",
        _ => panic!("no C++ type is known for {kind}"),
    };
    name.to_owned()
}
