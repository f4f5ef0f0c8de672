//! Reads Rust as far as the rules need it: code, literals and comments apart, functions, imports.

use super::rules::Part;

/// Whether a word stands in a text by itself: `fs::read` is not in `fs::read_dir`.
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let is_part =
        |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
    text.match_indices(word).any(|(start, _)| {
        let end = start + word.len();
        let is_cut_before = is_part(word.chars().next()) && is_part(text[..start].chars().last());
        let is_cut_after = is_part(word.chars().last()) && is_part(text[end..].chars().next());
        !is_cut_before && !is_cut_after
    })
}

/// The source with everything but one part blanked, lines and columns kept.
pub(crate) fn part_of(source: &str, part: Part) -> String {
    let chars: Vec<char> = source.chars().collect();
    let mut text = String::with_capacity(source.len());
    let mut start = 0;
    while start < chars.len() {
        let (found, end) = lexeme(&chars, start);
        text.extend(
            chars[start..end].iter().map(|&c| if found == part || c == '\n' { c } else { ' ' }),
        );
        start = end;
    }
    text
}

/// What starts at a place, and where it ends.
pub(crate) fn lexeme(chars: &[char], start: usize) -> (Part, usize) {
    let at = |place: usize| chars.get(place).copied().unwrap_or('\0');
    let find = |from: usize, wanted: &dyn Fn(usize) -> bool| {
        (from..chars.len()).find(|&place| wanted(place)).unwrap_or(chars.len())
    };
    match (at(start), at(start + 1)) {
        ('/', '/') => (Part::Comment, find(start, &|place| at(place) == '\n')),
        ('/', '*') => (Part::Comment, end_of_block_comment(chars, start)),
        ('"', _) => (Part::Text, end_of_quoted(chars, start, '"')),
        ('\'', next) if next == '\\' || at(start + 2) == '\'' => {
            (Part::Text, end_of_quoted(chars, start, '\''))
        }
        (first, _) if first.is_alphanumeric() || first == '_' => {
            let end = find(start, &|place| !at(place).is_alphanumeric() && at(place) != '_');
            let prefix: String = chars[start..end].iter().collect();
            let quote = find(end, &|place| at(place) != '#');
            if !matches!(&*prefix, "r" | "br" | "cr") || at(quote) != '"' {
                return (Part::Code, end);
            }
            let hashes = quote - end;
            let is_close = |place: usize| {
                at(place) == '"' && (1..=hashes).all(|number| at(place + number) == '#')
            };
            let close = find(quote + 1, &is_close);
            (Part::Text, (close + 1 + hashes).min(chars.len()))
        }
        _ => (Part::Code, start + 1),
    }
}

pub(crate) fn end_of_quoted(chars: &[char], start: usize, quote: char) -> usize {
    let mut place = start + 1;
    while place < chars.len() && chars[place] != quote {
        place += if chars[place] == '\\' { 2 } else { 1 };
    }
    (place + 1).min(chars.len())
}

/// Block comments nest.
pub(crate) fn end_of_block_comment(chars: &[char], start: usize) -> usize {
    let (mut place, mut depth) = (start, 0);
    while place < chars.len() {
        match &chars[place..chars.len().min(place + 2)] {
            ['/', '*'] => depth += 1,
            ['*', '/'] => depth -= 1,
            _ => {
                place += 1;
                continue;
            }
        }
        place += 2;
        if depth == 0 {
            return place;
        }
    }
    chars.len()
}

/// Line, name and length of every function with a body, from its signature to its last brace.
pub(crate) fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("fn ") {
        let name: String =
            code[start + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let is_cut = code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        if is_cut || name.is_empty() {
            continue;
        }
        let (mut brackets, mut braces) = (0, 0);
        for (place, char) in code[start..].char_indices() {
            match char {
                '(' | '[' => brackets += 1,
                ')' | ']' => brackets -= 1,
                '{' => braces += 1,
                '}' => braces -= 1,
                // A declaration of a trait.
                ';' if brackets == 0 && braces == 0 => break,
                _ => continue,
            }
            if char == '}' && brackets == 0 && braces == 0 {
                let line = 1 + code[..start].matches('\n').count();
                found.push((line, name, 1 + code[start..start + place].matches('\n').count()));
                break;
            }
        }
    }
    found
}

/// Every imported path in full, so that a rule sees `crate::store` in `use crate::{store, x}`.
pub(crate) fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (start, _) in code.match_indices("use ") {
        if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let Some(end) = code[start..].find(';') else { continue };
        let line = 1 + code[..start].matches('\n').count();
        let (mut prefixes, mut path) = (vec![String::new()], String::new());
        for char in code[start + 4..start + end].chars().filter(|c| !c.is_whitespace()) {
            let prefix = prefixes.last().cloned().unwrap_or_default();
            match char {
                '{' => prefixes.push(prefix + &std::mem::take(&mut path)),
                ',' => found.push((line, prefix + &std::mem::take(&mut path))),
                '}' => {
                    found.push((line, prefix + &std::mem::take(&mut path)));
                    prefixes.pop();
                }
                _ => path.push(char),
            }
        }
        found.push((line, prefixes.concat() + &path));
    }
    found
}
