//! A Rust file as its compiler sees it: identifiers and strings with their lines, comments gone, test code marked.

use std::path::Path;
use std::str::FromStr;

use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

/// One Rust file.
pub(crate) struct RustSource {
    /// From the top of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Identifiers and string literals, in order.
    pub(crate) words: Vec<Word>,
    /// The lines of items under `cfg(test)`.
    pub(crate) test_lines: usize,
    /// Whether `#![no_std]` stands in it.
    pub(crate) no_std: bool,
}

/// An identifier or a string literal.
#[derive(Debug)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) line: usize,
    pub(crate) is_string: bool,
    /// Under `cfg(test)`.
    pub(crate) in_test: bool,
}

impl RustSource {
    /// # Errors
    /// The text is not Rust; the message names the file and the line.
    pub(crate) fn parse(path: &str, text: &str) -> Result<Self, String> {
        let stream =
            TokenStream::from_str(text).map_err(|error| format!("{path}:{}: {error}", error.span().start().line))?;
        let mut source = Self {
            path: path.to_owned(),
            text: text.to_owned(),
            words: Vec::new(),
            test_lines: 0,
            no_std: false,
        };
        source.walk(stream, false);
        Ok(source)
    }

    /// Whether the file is nothing but tests or benchmarks.
    pub(crate) fn is_test_file(&self) -> bool {
        Path::new(&self.path).components().any(|part| {
            ["tests", "benches", "fuzz"]
                .iter()
                .any(|name| part.as_os_str() == *name)
        })
    }

    fn walk(&mut self, stream: TokenStream, outer_test: bool) {
        let tokens: Vec<TokenTree> = stream.into_iter().collect();
        let mut in_test = outer_test;
        let mut item_end = None;
        let mut at = 0;
        while at < tokens.len() {
            if let Some((attribute, inner, length)) = attribute(&tokens[at..]) {
                let words: Vec<String> = attribute.stream().into_iter().map(|token| token.to_string()).collect();
                self.no_std |= inner && words == ["no_std"];
                if is_test_only(&attribute) && !in_test {
                    in_test = true;
                    let end = if inner {
                        tokens.len()
                    } else {
                        at + length + item_length(&tokens[at + length..])
                    };
                    let last = tokens[end - 1].span().end().line;
                    self.test_lines += last + 1 - tokens[at].span().start().line;
                    item_end = Some(end);
                } else if words.first().is_some_and(|word| word != "doc") {
                    self.walk(attribute.stream(), in_test);
                }
                at += length;
                continue;
            }
            self.take(&tokens[at], in_test);
            at += 1;
            if item_end == Some(at) {
                in_test = outer_test;
                item_end = None;
            }
        }
    }

    fn take(&mut self, token: &TokenTree, in_test: bool) {
        let (text, is_string) = match token {
            TokenTree::Group(group) => return self.walk(group.stream(), in_test),
            TokenTree::Punct(_) => return,
            TokenTree::Ident(ident) => (ident.to_string(), false),
            TokenTree::Literal(literal) if literal.to_string().contains('"') => (literal.to_string(), true),
            TokenTree::Literal(_) => return,
        };
        self.words.push(Word {
            text,
            line: token.span().start().line,
            is_string,
            in_test,
        });
    }
}

/// The attribute at the head of the tokens: its bracketed part, whether it is an inner one, how many tokens it takes.
fn attribute(tokens: &[TokenTree]) -> Option<(Group, bool, usize)> {
    let is_punct =
        |token: Option<&TokenTree>, wanted| matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == wanted);
    if !is_punct(tokens.first(), '#') {
        return None;
    }
    let inner = is_punct(tokens.get(1), '!');
    let length = if inner { 3 } else { 2 };
    match tokens.get(length - 1) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => {
            Some((group.clone(), inner, length))
        }
        _ => None,
    }
}

/// `cfg(test)` and `cfg(all(test, ...))`, but not `cfg(not(test))` nor `cfg(any(test, ...))`, which leave code in the product.
fn is_test_only(attribute: &Group) -> bool {
    let text: String = attribute.stream().to_string().split_whitespace().collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// How many tokens the item at the head takes: up to its body, its semicolon, or the comma behind a field or variant.
fn item_length(tokens: &[TokenTree]) -> usize {
    let mut angles = 0_i32;
    let mut after_joint_dash = false;
    for (index, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return index + 1,
            TokenTree::Punct(punct) => match punct.as_char() {
                ';' => return index + 1,
                ',' if angles == 0 => return index + 1,
                '<' => angles += 1,
                '>' if !after_joint_dash => angles -= 1,
                _ => {}
            },
            TokenTree::Group(_) | TokenTree::Ident(_) | TokenTree::Literal(_) => {}
        }
        after_joint_dash =
            matches!(token, TokenTree::Punct(punct) if punct.as_char() == '-' && punct.spacing() == Spacing::Joint);
    }
    tokens.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product_words(text: &str) -> Vec<String> {
        let source = RustSource::parse("x.rs", text).unwrap();
        source
            .words
            .into_iter()
            .filter(|word| !word.in_test)
            .map(|word| word.text)
            .collect()
    }

    #[test]
    fn comments_are_gone_and_strings_stay() {
        assert_eq!(
            product_words("//! one\n/// two\nuse three::four; // five\nconst A: B = \"six\";"),
            ["use", "three", "four", "const", "A", "B", "\"six\""]
        );
        assert_eq!(
            product_words("#[derive(One)] struct Two;"),
            ["derive", "One", "struct", "Two"]
        );
    }

    #[test]
    fn test_code_is_marked_to_its_end() {
        let check = |text: &str, expected: &[&str]| assert_eq!(product_words(text), expected, "{text}");
        check("#[cfg(test)] mod tests { use hidden; }\nuse shown;", &["use", "shown"]);
        check("#[cfg(test)] extern crate hidden; use shown;", &["use", "shown"]);
        check(
            "#[cfg(test)] #[allow(x)] fn hidden<A, B>() -> C<D> { body } use shown;",
            &["use", "shown"],
        );
        check("enum E { A, #[cfg(test)] Hidden, B }", &["enum", "E", "A", "B"]);
        check("#![cfg(test)] use hidden;", &[]);
        check("#[cfg(not(test))] use shown;", &["cfg", "not", "test", "use", "shown"]);
        check(
            "#[cfg(any(test, feature = \"f\"))] use shown;",
            &["cfg", "any", "test", "feature", "\"f\"", "use", "shown"],
        );
    }

    #[test]
    fn lines_of_tests_are_counted() {
        let source = RustSource::parse("x.rs", "use a;\n#[cfg(test)]\nmod tests {\n    use b;\n}\n").unwrap();
        assert_eq!(source.test_lines, 4);
        assert_eq!(source.words[0].line, 1);
    }

    #[test]
    fn no_std_is_an_inner_attribute_and_not_a_comment() {
        let no_std = |text: &str| RustSource::parse("x.rs", text).unwrap().no_std;
        assert!(no_std("//! doc\n#![no_std]\n"));
        assert!(!no_std("// #![no_std]\n"));
        assert!(!no_std("#![cfg_attr(not(test), no_std)]\n"));
    }

    #[test]
    fn what_is_not_rust_is_an_error_with_its_line() {
        assert!(
            RustSource::parse("x.rs", "fn a() {\n}\n}")
                .err()
                .unwrap()
                .starts_with("x.rs:3:")
        );
    }
}
