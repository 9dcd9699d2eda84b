//! A schema-only dump of pg_dump, taken apart into objects: what each is called, and its definition.
//!
//! Objects have the names that `pg_identify_object` gives them. Nothing here looks at catalogs, so that
//! it can judge what does.

mod entries;
mod kinds;

pub use entries::plain;
use entries::{between, entries, identifier, quoted, Entry};
use kinds::{kind_of, KINDS};
use std::collections::{BTreeMap, BTreeSet};

/// What the columns of a table are called, in their order.
pub const ORDER: &str = "order of columns of ";

/// The objects of a dump, by name.
#[derive(Default)]
struct Objects {
    texts: BTreeMap<String, String>,
    /// What each relation is: `public.t`, table.
    kinds: BTreeMap<String, &'static str>,
    /// Functions by what they are called with the names of their arguments.
    functions: BTreeMap<String, String>,
    /// The constraints of indexes that are there for them.
    constraints: BTreeMap<String, String>,
    unlogged: BTreeSet<String>,
    /// Columns that stand in their own table's statement.
    declared: BTreeSet<String>,
    /// Partitions, and tables that inherit; of what.
    parents: Vec<(String, String, bool)>,
}

impl Objects {
    fn add(&mut self, object: &str, text: &str) {
        let known = self.texts.entry(plain(object)).or_default();
        *known += text.trim();
        known.push('\n');
    }

    fn kind(&self, relation: &str) -> &'static str {
        self.kinds.get(&plain(relation)).copied().unwrap_or("table")
    }

    /// The columns and constraints of a table stand a line each.
    fn table(&mut self, kind: &'static str, table: &str, text: &str) {
        let mut rest = String::new();
        let mut order = Vec::new();
        for statement in text.split(";\n") {
            let statement = statement.trim_start();
            let body = statement.split_once(" (\n");
            if let Some(body) = body.filter(|it| it.0.contains("CREATE ") && !it.0.contains('\n')) {
                let (columns, tail) = body.1.split_once("\n)").unwrap_or(("", body.1));
                rest += body.0;
                rest += tail;
                for line in columns.lines() {
                    let line = line.trim_start();
                    let line = line.trim_end_matches(',');
                    match line.strip_prefix("CONSTRAINT ") {
                        Some(it) => {
                            let (name, check) = identifier(it);
                            self.add(&format!("table constraint {name} on {table}"), check);
                        }
                        None => {
                            let column = identifier(line).0;
                            order.push(column);
                            let column = format!("{kind} column {table}.{column}");
                            self.add(&column, line);
                            self.declared.insert(plain(&column));
                        }
                    }
                }
                if let Some((_, parent)) = rest.split_once("INHERITS (") {
                    let parent = identifier(parent).0.to_string();
                    self.parents.push((table.into(), parent, false));
                }
            } else if let Some((_, change)) = statement.split_once(" ALTER COLUMN ") {
                let (column, change) = identifier(change);
                self.add(&format!("{kind} column {table}.{column}"), change);
            } else {
                rest += statement;
            }
        }
        // Of tables that inherit, the dump does not say it.
        if !order.is_empty() && !rest.contains("INHERITS (") {
            self.add(&format!("{ORDER}{kind} {table}"), &order.join("\n"));
        }
        // The method is what was said of the table before.
        if rest.contains("PARTITION BY") {
            rest = rest.split_once("CREATE ").map_or("", |it| it.1).into();
        }
        if rest.contains("CREATE UNLOGGED ") {
            self.unlogged.insert(table.into());
        }
        self.add(&format!("{kind} {table}"), &rest);
    }

    /// Keys and unique constraints are a constraint and an index.
    fn constraint(&mut self, entry: &Entry) {
        let table = identifier(between(&entry.text, "ONLY ", "\u{0}")).0;
        let (name, text) = identifier(between(&entry.text, "ADD CONSTRAINT ", "\u{0}"));
        let (text, of_index) = text.split_once(";\n").unwrap_or((text, ""));
        let options = between(text, " WITH (", ")");
        let without = text.replace(&format!(" WITH ({options})"), "");
        self.add(&format!("table constraint {name} on {table}"), &without);
        if entry.kind == "CONSTRAINT" {
            // Whether it can be deferred is said of the constraint only.
            let text = text.split(" DEFERRABLE").next().unwrap_or(text);
            let index = format!("index {}.{name}", entry.schema);
            self.add(&index, &format!("{table} {text};\n{of_index}"));
            let constraint = format!("table constraint {name} on {table}");
            self.constraints.insert(index, constraint);
        }
    }

    /// Rights by grantee. Names are quoted in these headers.
    fn rights(&mut self, entry: &Entry) {
        let (kind, name) = entry.name.split_once(' ').unwrap_or(("", ""));
        let qualified = format!("{}.{name}", entry.schema);
        let object = match kind {
            "COLUMN" => {
                let (table, _) = qualified.rsplit_once('.').unwrap_or((&qualified, ""));
                format!("{} column {qualified}", self.kind(table))
            }
            "TABLE" => format!("{} {qualified}", self.kind(&qualified)),
            "FUNCTION" | "PROCEDURE" => self.functions[&qualified].clone(),
            "SCHEMA" | "LANGUAGE" => format!("{} {name}", kind.to_lowercase()),
            "FOREIGN" => match name.strip_prefix("DATA WRAPPER ") {
                Some(name) => format!("foreign-data wrapper {name}"),
                None => format!("server {}", name.trim_start_matches("SERVER ")),
            },
            _ => format!("{} {qualified}", kind_of(kind).unwrap_or("?")),
        };
        for line in entry.text.lines() {
            let who = line.rsplit_once(" TO ").or(line.rsplit_once(" FROM "));
            let Some((_, who)) = who else { continue };
            let (who, _) = identifier(who);
            self.add(&format!("rights of {who} on {object}"), line);
        }
    }

    fn comment(&mut self, entry: &Entry) {
        let text = entry.text.trim_start_matches("COMMENT ON ");
        let (on, says) = text.split_once(" IS '").unwrap_or((text, ""));
        let begins = |kind: &str| on.strip_prefix(kind).map(str::trim);
        let object = if let Some(column) = begins("COLUMN ") {
            let (table, _) = column.rsplit_once('.').unwrap_or((column, ""));
            format!("{} column {column}", self.kind(table))
        } else if let Some(name) = begins("CONSTRAINT ") {
            match name.contains(" ON DOMAIN ") {
                true => format!("domain constraint {}", name.replace(" ON DOMAIN ", " on ")),
                false => format!("table constraint {}", name.replace(" ON ", " on ")),
            }
        } else if let Some(name) = begins("TRIGGER ").or(begins("RULE ")).or(begins("POLICY ")) {
            let kind = on.split(' ').next().unwrap_or("").to_lowercase();
            format!("{kind} {}", name.replace(" ON ", " on "))
        } else if let Some(name) = begins("TABLE ") {
            format!("{} {name}", self.kind(name))
        } else if let Some(function) = begins("FUNCTION ")
            .or(begins("PROCEDURE "))
            .or(begins("AGGREGATE "))
        {
            self.functions[function].clone()
        } else {
            let mut kinds: Vec<_> = KINDS.iter().filter(|it| begins(it.0).is_some()).collect();
            kinds.sort_by_key(|it| it.0.len());
            let (long, kind) = kinds.last().map_or(("", "?"), |it| **it);
            format!("{kind} {}", begins(long).unwrap_or(on))
        };
        self.add(&format!("comment on {object}"), says);
    }

    /// The operators and functions of a class are its family's.
    fn operator_class(&mut self, entry: &Entry) {
        let (head, members) = entry.text.split_once(" AS\n").unwrap_or((&entry.text, ""));
        let (members, owner) = members.split_once(";\n").unwrap_or((members, ""));
        let method = identifier(between(head, "USING ", "\u{0}")).0;
        let name = format!("{}.{} USING {method}", entry.schema, quoted(&entry.name));
        let family = match head.split_once(" FAMILY ") {
            Some((_, family)) => format!("{} USING {method}", identifier(family).0),
            None => name.clone(),
        };
        let mut members: Vec<&str> = members.lines().collect();
        members.retain(|it| {
            let storage = it.trim().starts_with("STORAGE");
            if storage {
                self.add(&format!("operator class {name}"), it.trim_end_matches(" ,"));
            }
            !storage
        });
        self.add(
            &format!("operator class {name}"),
            &format!("{head}\n{owner}"),
        );
        for member in members {
            self.member(&family, member);
        }
    }

    fn member(&mut self, family: &str, member: &str) {
        let member = member.trim().trim_end_matches([',', ';']).trim();
        // Sorted in the end.
        self.add(
            &format!("operator family {family}"),
            &format!("member {member}"),
        );
    }

    fn operator_family(&mut self, entry: &Entry) {
        let method = identifier(between(&entry.text, "USING ", "\u{0}")).0;
        let family = format!("{}.{} USING {method}", entry.schema, quoted(&entry.name));
        let family = family.replace(';', "");
        for statement in entry.text.split(";\n") {
            match statement.split_once(" ADD\n") {
                Some((_, members)) => members.lines().for_each(|it| self.member(&family, it)),
                None => self.add(&format!("operator family {family}"), statement),
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let Entry {
            name,
            kind,
            schema,
            text,
            owner,
        } = entry;
        let qualified = format!("{schema}.{}", quoted(name));
        // Of a table: its name and another, in the header.
        let (of, own) = name.split_once(' ').unwrap_or((name, ""));
        let (of, own) = (format!("{schema}.{}", quoted(of)), quoted(own));
        match kind.as_str() {
            "TABLE" => self.table("table", &qualified, text),
            "FOREIGN TABLE" => self.table("foreign table", &qualified, text),
            "ROW SECURITY" => self.add(&format!("table {qualified}"), text),
            "TABLE ATTACH" => {
                let parent = identifier(between(text, "ONLY ", "\u{0}")).0.to_string();
                self.add(&format!("{} {qualified}", self.kind(&qualified)), text);
                self.parents.push((qualified, parent, true));
            }
            "INDEX ATTACH" => {
                let child = format!("index {}", between(text, "ATTACH PARTITION ", ";"));
                self.add(&child, text);
                if let Some(constraint) = self.constraints.get(&child).cloned() {
                    self.add(&constraint, "INHERITED");
                }
            }
            "VIEW" | "MATERIALIZED VIEW" => {
                let kind = self.kind(&qualified);
                self.table(kind, &qualified, text)
            }
            "DEFAULT" => {
                let change = between(text, " ALTER COLUMN ", "\u{0}");
                self.add(&format!("{} column {of}.{own}", self.kind(&of)), change);
            }
            "SEQUENCE" if text.contains(" ADD GENERATED ") => {
                let change = between(text, " ALTER COLUMN ", " (");
                let (column, change) = identifier(change);
                let table = identifier(between(text, "ALTER TABLE ", "\u{0}")).0;
                self.add(&format!("table column {table}.{column}"), change);
                let rest = text.split_once(" (\n").map_or("", |it| it.1);
                // An identity's sequence has these from its table.
                let logged = !self.unlogged.contains(table);
                let rest = format!("{table}.{column} {rest} {owner} {logged}");
                self.add(&format!("sequence {qualified}"), &rest);
            }
            "CONSTRAINT" | "FK CONSTRAINT" | "CHECK CONSTRAINT" => match text.contains("DOMAIN ") {
                true => self.add(&format!("type {of}"), text),
                false if text.contains(" ONLY ") => self.constraint(entry),
                false => {
                    let fixed = text.replacen("TABLE ", "TABLE ONLY ", 1);
                    let fixed = Entry {
                        text: fixed,
                        kind: kind.clone(),
                        name: name.clone(),
                        schema: schema.clone(),
                        owner: owner.clone(),
                    };
                    self.constraint(&fixed)
                }
            },
            "TRIGGER" | "RULE" | "POLICY" => {
                self.add(&format!("{} {own} on {of}", kind.to_lowercase()), text)
            }
            "FUNCTION" | "PROCEDURE" | "AGGREGATE" => {
                let object = format!("{} {schema}.{name}", kind.to_lowercase());
                self.add(&object, text);
                let named = between(text, &format!("\nALTER {kind} "), " OWNER TO");
                let named = named.split(" DEPENDS ON").next().unwrap_or(named);
                self.functions.insert(named.into(), object);
            }
            "OPERATOR" => {
                let side = |side: &str| match between(text, side, "\u{0}") {
                    "" => "NONE".to_string(),
                    it => it.split([',', '\n']).next().unwrap_or(it).to_string(),
                };
                let sides = format!("{},{}", side("LEFTARG = "), side("RIGHTARG = "));
                self.add(&format!("operator {schema}.{name}({sides})"), text)
            }
            "OPERATOR CLASS" => self.operator_class(entry),
            "OPERATOR FAMILY" => self.operator_family(entry),
            "CAST" => self.add(&format!("cast {}", name.trim_start_matches("CAST ")), text),
            "TRANSFORM" => {
                let of = name
                    .trim_start_matches("TRANSFORM FOR ")
                    .replace(" LANGUAGE ", " on language ");
                self.add(&format!("transform for {of}"), text)
            }
            "USER MAPPING" => {
                let name = name.trim_start_matches("USER MAPPING ");
                let (who, server) = name.split_once(" SERVER ").unwrap_or((name, ""));
                self.add(
                    &format!("user mapping {} on server {server}", quoted(who)),
                    "",
                )
            }
            "PUBLICATION TABLE" => {
                let what = format!(
                    "publication relation {schema}.{own} in publication {}",
                    name.split(' ').next().unwrap_or("")
                );
                self.add(&what, text)
            }
            "PUBLICATION TABLES IN SCHEMA" => {
                // Not quoted.
                let own = own.replace('"', "");
                let what = format!(
                    "publication namespace {own} in publication {}",
                    name.split(' ').next().unwrap_or("")
                );
                self.add(&what, text)
            }
            "DEFAULT ACL" => {
                let role = identifier(between(text, "FOR ROLE ", "\u{0}")).0;
                let what = name.rsplit(' ').next().unwrap_or("").to_lowercase();
                let place = match schema.as_str() {
                    "\"-\"" => String::new(),
                    schema => format!(" in schema {schema}"),
                };
                self.add(
                    &format!("default acl for role {role}{place} on {what}"),
                    text,
                )
            }
            "ACL" => self.rights(entry),
            "COMMENT" => self.comment(entry),
            _ => {
                let kind = kind_of(kind).unwrap_or_else(|| panic!("{kind} {name}: {text}"));
                let name = match schema.as_str() {
                    "\"-\"" => quoted(name),
                    _ => qualified,
                };
                self.add(&format!("{kind} {name}"), text)
            }
        }
    }

    /// What tables have from their parents, which stands there only.
    fn inherit(&mut self) {
        for (child, parent, attached) in std::mem::take(&mut self.parents) {
            let (parent, child) = (plain(&parent), plain(&child));
            let columns = format!("table column {parent}.");
            let constraints = format!(" on {parent}");
            for (object, text) in self.texts.clone() {
                let own = if let Some(column) = object.strip_prefix(&columns) {
                    format!("{} column {child}.{column}", self.kind(&child))
                } else if object.starts_with("table constraint ")
                    && object.ends_with(&constraints)
                    && text.contains("CHECK")
                    && !text.contains("NO INHERIT")
                {
                    object.replace(&constraints, &format!(" on {child}"))
                } else {
                    continue;
                };
                let declared = self.declared.contains(&own)
                    || own.starts_with("table constraint") && self.texts.contains_key(&own);
                let mark = match (declared, attached) {
                    (false, _) => format!("INHERITED {}", text.lines().next().unwrap_or("")),
                    (true, true) => "INHERITED".into(),
                    (true, false) => "INHERITED, LOCAL".into(),
                };
                self.add(&own, &mark);
            }
        }
    }
}

/// The objects of this dump, and their definitions.
pub fn objects(dump: &str) -> BTreeMap<String, String> {
    let entries = entries(dump);
    let mut objects = Objects::default();
    for entry in &entries {
        let kind = match entry.kind.as_str() {
            "TABLE" => "table",
            "FOREIGN TABLE" => "foreign table",
            "VIEW" => "view",
            "MATERIALIZED VIEW" => "materialized view",
            "TYPE" => "composite type",
            _ => continue,
        };
        let name = format!("{}.{}", entry.schema, quoted(&entry.name));
        objects.kinds.insert(plain(&name), kind);
    }
    entries.iter().for_each(|entry| objects.entry(entry));
    objects.inherit();
    let texts = objects.texts.into_iter();
    texts
        .map(|(object, text)| {
            let mut lines: Vec<&str> = text.lines().collect();
            if object.starts_with("operator family") {
                lines.sort();
            }
            // What an owner has is taken away before it is given.
            if lines.iter().any(|it| it.starts_with("GRANT ")) {
                lines.retain(|it| !it.starts_with("REVOKE ALL ON "));
            }
            (object, lines.join("\n"))
        })
        .collect()
}
