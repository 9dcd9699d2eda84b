//! Kinds of objects: their names in a dump, and elsewhere.

/// What `pg_identify_object` calls that of which the dump says no more than the name.
pub const KINDS: &[(&str, &str)] = &[
    ("VIEW", "view"),
    ("MATERIALIZED VIEW", "materialized view"),
    ("SEQUENCE", "sequence"),
    ("SEQUENCE OWNED BY", "sequence"),
    ("INDEX", "index"),
    ("SCHEMA", "schema"),
    ("EXTENSION", "extension"),
    ("TYPE", "type"),
    ("SHELL TYPE", "type"),
    ("DOMAIN", "type"),
    ("FUNCTION", "function"),
    ("PROCEDURE", "procedure"),
    ("AGGREGATE", "aggregate"),
    ("COLLATION", "collation"),
    ("CONVERSION", "conversion"),
    ("PROCEDURAL LANGUAGE", "language"),
    ("LANGUAGE", "language"),
    ("ACCESS METHOD", "access method"),
    ("TEXT SEARCH CONFIGURATION", "text search configuration"),
    ("TEXT SEARCH DICTIONARY", "text search dictionary"),
    ("TEXT SEARCH PARSER", "text search parser"),
    ("TEXT SEARCH TEMPLATE", "text search template"),
    ("EVENT TRIGGER", "event trigger"),
    ("FOREIGN DATA WRAPPER", "foreign-data wrapper"),
    ("SERVER", "server"),
    ("FOREIGN SERVER", "server"),
    ("PUBLICATION", "publication"),
    ("STATISTICS", "statistics object"),
    ("OPERATOR", "operator"),
    ("OPERATOR CLASS", "operator class"),
    ("OPERATOR FAMILY", "operator family"),
    ("CAST", "cast"),
];

pub fn kind_of(kind: &str) -> Option<&'static str> {
    let found = KINDS.iter().find(|it| it.0 == kind);
    found.map(|it| it.1)
}
