//! The entries of a dump, and the words of its statements.

/// One comment header of the dump, and the statements below it.
pub struct Entry {
    pub name: String,
    pub kind: String,
    pub schema: String,
    pub owner: String,
    pub text: String,
}

/// An identifier as PostgreSQL prints it.
pub fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match name.chars().all(plain) {
        true => name.into(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

/// The identifier that the text begins with, qualified or not, and what is behind it.
pub fn identifier(text: &str) -> (&str, &str) {
    let mut inside = false;
    let end = text.find(|c: char| {
        inside ^= c == '"';
        !inside && (c.is_whitespace() || ",;()".contains(c))
    });
    text.split_at(end.unwrap_or(text.len()))
}

pub fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let rest = text.split_once(before).map_or("", |it| it.1);
    rest.split_once(after).map_or(rest, |it| it.0)
}

/// Without what says the same in two ways.
pub fn plain(object: &str) -> String {
    let object = object.replace("pg_catalog.", "").replace(", ", ",");
    object.replace(" (", "(")
}

pub fn entries(dump: &str) -> Vec<Entry> {
    let mut entries: Vec<Entry> = Vec::new();
    // Said before the header of the table that it is for, where it has changed.
    let mut method = String::new();
    for line in dump.lines() {
        if let Some(header) = line.strip_prefix("-- Name: ") {
            let kind = between(header, "; Type: ", "; ").to_string();
            let text = match kind.as_str() {
                "TABLE" | "MATERIALIZED VIEW" => format!("{method}\n"),
                _ => String::new(),
            };
            entries.push(Entry {
                name: header.split("; Type: ").next().unwrap_or("").into(),
                schema: quoted(between(header, "; Schema: ", ";")),
                owner: between(header, "; Owner: ", ";").into(),
                kind,
                text,
            });
        } else if line.starts_with("SET default_table_access_method") {
            method = line.into();
        } else if !(line.is_empty()
            || line == "--"
            || line.starts_with("-- PostgreSQL")
            || line.starts_with("-- Dumped")
            || line.starts_with("SET default_")
            || line.starts_with("\\restrict")
            || line.starts_with("\\unrestrict"))
        {
            if let Some(entry) = entries.last_mut() {
                entry.text += line;
                entry.text.push('\n');
            }
        }
    }
    entries
}
