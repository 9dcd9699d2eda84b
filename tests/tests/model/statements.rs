//! Makes up statements. Each gives the same result wherever it is run.

use super::rng::Rng;
use super::shape::{Shape, Table};

/// Kinds of statements with their usual weights; each seed varies them.
pub const KINDS: [(Kind, usize); 17] = [
    (Kind::Insert, 16),
    (Kind::Update, 16),
    (Kind::Delete, 8),
    (Kind::CutTail, 4),
    (Kind::Truncate, 3),
    (Kind::Vacuum, 8),
    (Kind::Rewrite, 5),
    (Kind::Reindex, 4),
    (Kind::CreateIndex, 5),
    (Kind::DropIndex, 2),
    (Kind::CreateTable, 4),
    (Kind::DropTable, 2),
    (Kind::Alter, 4),
    (Kind::Sequence, 5),
    (Kind::LargeObject, 5),
    (Kind::Catalogs, 3),
    (Kind::Concurrently, 2),
];

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Insert,
    Update,
    Delete,
    CutTail,
    Truncate,
    Vacuum,
    Rewrite,
    Reindex,
    CreateIndex,
    DropIndex,
    CreateTable,
    DropTable,
    Alter,
    Sequence,
    LargeObject,
    Catalogs,
    Concurrently,
}

impl Kind {
    /// Whether it can run in a transaction block.
    pub fn in_block(self) -> bool {
        !matches!(
            self,
            Kind::Vacuum | Kind::CutTail | Kind::Rewrite | Kind::Catalogs | Kind::Concurrently
        )
    }
}

/// The value of column v: short, compressible, or for TOAST.
fn value(rng: &mut Rng, of: &str) -> String {
    let salt = rng.below(1000);
    match rng.below(5) {
        0 => format!("repeat(md5(({of} + {salt})::text), 30)"),
        1 => format!("(SELECT string_agg(md5((({of} + {salt}) * j)::text), '') FROM generate_series(1, 130) j)"),
        2 => "NULL".into(),
        _ => format!("'v' || ({of} + {salt})"),
    }
}

/// A range of ids, mostly a small one.
fn range(rng: &mut Rng, table: &Table) -> String {
    let first = rng.below(table.next);
    let count = if rng.chance(15) {
        table.next
    } else {
        1 + rng.below(60)
    };
    format!("id BETWEEN {first} AND {}{}", first + count, table.guard())
}

pub fn insert(rng: &mut Rng, table: &mut Table) -> String {
    let value = value(rng, "i");
    let most = if value.starts_with("(SELECT") {
        15
    } else {
        250
    };
    let first = table.next;
    table.next += 1 + rng.below(most);
    format!(
        "INSERT INTO {} (id, k, v) SELECT i, i * 37 % 1000, {value} FROM generate_series({first}, {}) i",
        table.name,
        table.next - 1
    )
}

pub fn update(rng: &mut Rng, table: &Table) -> String {
    let set = match rng.below(3) {
        0 => format!("v = {}", value(rng, "id")),
        _ => format!("k = (k + {}) % 1000", 1 + rng.below(500)),
    };
    let range = range(rng, table);
    format!("UPDATE {} SET {set} WHERE {range}", table.name)
}

fn index(rng: &mut Rng, table: &mut Table, name: String, concurrently: &str) -> String {
    let unique = rng.chance(30);
    let on = match rng.below(9) {
        0 | 1 => "(id)",
        2 => "(k, id)",
        3 => "USING hash (k)",
        4 => "USING gin ((ARRAY[k % 10, id % 10]))",
        5 => "USING gist (point(id, k))",
        6 => "USING brin (id) WITH (pages_per_range = 2)",
        7 => "USING spgist (point(id, k))",
        _ => "(md5(v)) WHERE k < 500",
    };
    let cluster = matches!(on, "(id)" | "(k, id)");
    let unique = if unique && on == "(id)" {
        "UNIQUE "
    } else {
        ""
    };
    table.indexes.push((name.clone(), cluster));
    let space = if rng.chance(15) && cluster {
        " TABLESPACE other"
    } else {
        ""
    };
    format!(
        "CREATE {unique}INDEX {concurrently}{name} ON {} {on}{space}",
        table.name
    )
}

fn alter(rng: &mut Rng, table: &mut Table, name: String) -> String {
    let what = match rng.below(9) {
        0 => {
            table.columns.push(name.clone());
            format!("ADD COLUMN {name} int DEFAULT {}", rng.below(1000))
        }
        // Volatile, so the table is rewritten.
        1 => {
            table.columns.push(name.clone());
            format!("ADD COLUMN {name} text DEFAULT set_config('model.x', 'x', true)")
        }
        2 if !table.columns.is_empty() => {
            let column = table.columns.pop().unwrap_or_default();
            format!("DROP COLUMN {column}")
        }
        3 => "ALTER COLUMN k TYPE int USING k + 1".into(),
        4 => "ALTER COLUMN v TYPE text USING v || '!'".into(),
        5 => "SET TABLESPACE other".into(),
        6 => "SET TABLESPACE pg_default".into(),
        7 => "ALTER COLUMN v SET STORAGE external".into(),
        _ => format!("SET (fillfactor = {})", 40 + rng.below(60)),
    };
    format!("ALTER TABLE {} {what}", table.name)
}

/// A statement of this kind in a database of this shape; `None` if there is nothing to do it to.
/// Lines are to be sent one by one; `{database}` stands for the database's name.
pub fn make(rng: &mut Rng, shape: &mut Shape, kind: Kind, fresh: &mut usize) -> Option<String> {
    *fresh += 1;
    let fresh = *fresh;
    let free = shape.is_free();
    let needs_whole = !matches!(
        kind,
        Kind::Insert | Kind::Update | Kind::Delete | Kind::Vacuum
    );
    match kind {
        Kind::Sequence => return Some(sequence(rng, shape, fresh)),
        Kind::LargeObject => return Some(large_object(rng, shape, fresh)),
        Kind::CreateTable => return Some(create_table(rng, shape, fresh)),
        Kind::Catalogs if !free => return None,
        Kind::Catalogs => {
            let what = [
                "VACUUM FULL pg_class",
                "VACUUM FULL pg_attribute",
                "VACUUM FULL pg_largeobject",
                "REINDEX TABLE pg_class",
                "REINDEX TABLE pg_index",
                "REINDEX SYSTEM {database}",
                "VACUUM FREEZE",
                "VACUUM FULL",
                "VACUUM",
                "ANALYZE",
            ];
            return Some((*rng.pick(&what)).to_string());
        }
        Kind::Concurrently if !free => return None,
        _ => {}
    }
    let usable: Vec<usize> = (0..shape.tables.len())
        .filter(|at| {
            let table = &shape.tables[*at];
            !table.whole_held && (!needs_whole || table.rows_held == 0)
        })
        .collect();
    if usable.is_empty() {
        return None;
    }
    let at = *rng.pick(&usable);
    let table = &mut shape.tables[at];
    let name = table.name.clone();
    Some(match kind {
        Kind::Insert => insert(rng, table),
        Kind::Update => update(rng, table),
        Kind::Delete => {
            let range = range(rng, table);
            format!("DELETE FROM {name} WHERE {range}")
        }
        // VACUUM gives the end of the file back.
        Kind::CutTail => {
            let keep = rng.below(table.next);
            format!("DELETE FROM {name} WHERE id > {keep}\nVACUUM {name}")
        }
        Kind::Truncate => format!("TRUNCATE {name}"),
        // It would try for seconds to get the lock that giving pages back takes.
        Kind::Vacuum if table.rows_held > 0 => format!("VACUUM (TRUNCATE off) {name}"),
        Kind::Vacuum => {
            let how = ["", "(FREEZE) ", "(ANALYZE) ", "(DISABLE_PAGE_SKIPPING) "];
            format!("VACUUM {}{name}", rng.pick(&how))
        }
        Kind::Rewrite => match table.indexes.iter().find(|index| index.1) {
            Some(index) if rng.chance(50) => format!("CLUSTER {name} USING {}", index.0),
            _ => format!("VACUUM FULL {name}"),
        },
        Kind::Reindex => format!("REINDEX TABLE {name}"),
        Kind::CreateIndex => index(rng, table, format!("i{fresh}"), ""),
        Kind::DropIndex => {
            let index = table.indexes.pop()?;
            format!("DROP INDEX {}", index.0)
        }
        Kind::DropTable => {
            shape.tables.remove(at);
            format!("DROP TABLE {name}")
        }
        Kind::Alter => alter(rng, table, format!("c{fresh}")),
        Kind::Concurrently => match rng.below(3) {
            0 => format!("REINDEX TABLE CONCURRENTLY {name}"),
            1 if !table.indexes.is_empty() => {
                let index = table.indexes.remove(0);
                format!("DROP INDEX CONCURRENTLY {}", index.0)
            }
            _ => index(rng, table, format!("i{fresh}"), "CONCURRENTLY "),
        },
        _ => return None,
    })
}

fn create_table(rng: &mut Rng, shape: &mut Shape, fresh: usize) -> String {
    let mut table = Table::new(format!("t{fresh}"));
    table.unlogged = rng.chance(10);
    let sort = if table.unlogged { "UNLOGGED " } else { "" };
    let space = if rng.chance(10) {
        " TABLESPACE other"
    } else {
        ""
    };
    let mut sql = format!(
        "CREATE {sort}TABLE {} (id int, k int, v text){space}",
        table.name
    );
    // In the same transaction, so that wal_level = minimal logs none of it.
    if rng.chance(50) {
        sql = format!("{sql}; {}", insert(rng, &mut table));
    }
    shape.tables.push(table);
    sql
}

fn sequence(rng: &mut Rng, shape: &mut Shape, fresh: usize) -> String {
    if shape.sequences.is_empty() || rng.chance(10) {
        shape.sequences.push(format!("s{fresh}"));
        return format!("CREATE SEQUENCE s{fresh}");
    }
    let at = rng.below(shape.sequences.len());
    let name = shape.sequences[at].clone();
    match rng.below(8) {
        0 => format!("SELECT setval('{name}', {})", 1 + rng.below(5000)),
        1 => format!("ALTER SEQUENCE {name} RESTART WITH {}", 1 + rng.below(5000)),
        2 if shape.sequences.len() > 3 => {
            shape.sequences.remove(at);
            format!("DROP SEQUENCE {name}")
        }
        _ => format!(
            "SELECT max(nextval('{name}')) FROM generate_series(1, {})",
            1 + rng.below(50)
        ),
    }
}

fn large_object(rng: &mut Rng, shape: &mut Shape, fresh: usize) -> String {
    let bytes = format!(
        "decode(repeat(md5('{fresh}'), {}), 'hex')",
        1 + rng.below(400)
    );
    if shape.objects.is_empty() || rng.chance(30) {
        shape.objects.push(fresh as u32 + 100_000);
        return format!("SELECT lo_from_bytea({}, {bytes})", fresh + 100_000);
    }
    let at = rng.below(shape.objects.len());
    let id = shape.objects[at];
    match rng.below(4) {
        0 => {
            shape.objects.remove(at);
            format!("SELECT lo_unlink({id})")
        }
        _ => format!("SELECT lo_put({id}, {}, {bytes})", rng.below(20_000)),
    }
}
