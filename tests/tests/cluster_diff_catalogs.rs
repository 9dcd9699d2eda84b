//! fork_diff_schema against the server's own list of catalogs and of their columns: each is changed by hand in a
//! transaction of a fork, and has to be told, or is on a list with the reason why it is none of a definition's.

use pg_fork_tests::Cluster;
use postgres::Client;
use std::collections::BTreeMap;

#[path = "diff_schema/changes.rs"]
#[allow(dead_code)]
mod changes;
#[path = "diff_catalogs/reasons.rs"]
mod reasons;
use reasons::{CATALOGS, COLUMNS, OTHER_VALUES, SET_UP};

/// A column, its type, and the catalog that it points into.
struct Column {
    catalog: String,
    name: String,
    of_type: String,
    points_to: Option<String>,
    first: String,
}

fn columns(client: &mut Client) -> Vec<Column> {
    let sql = "
        SELECT c.relname::text, a.attname::text, format_type(a.atttypid, NULL),
               (SELECT k.pktable::text FROM pg_get_catalog_foreign_keys() k
                WHERE k.fktable = c.oid AND k.fkcols = ARRAY[a.attname::text] AND NOT k.is_array LIMIT 1),
               (SELECT f.attname::text FROM pg_attribute f WHERE f.attrelid = c.oid AND f.attnum = 1)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'pg_catalog'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY c.relname, a.attnum";
    let rows = client.query(sql, &[]).expect("columns");
    let rows = rows.iter().map(|row| Column {
        catalog: row.get(0),
        name: row.get(1),
        of_type: row.get(2),
        points_to: row.get(3),
        first: row.get(4),
    });
    rows.collect()
}

/// Another value for the column, as SQL; several to try.
fn others(column: &Column) -> Vec<String> {
    let Column { catalog, name, .. } = column;
    let key = format!("{catalog}.{name}");
    if let Some((_, value)) = OTHER_VALUES.iter().find(|it| it.0 == key) {
        return vec![value.to_string()];
    }
    let taken = format!(
        "(SELECT o.{name} FROM {catalog} o WHERE o.{name}::text <> t.{name}::text ORDER BY o.{name}::text DESC LIMIT 1)"
    );
    match (column.of_type.as_str(), &column.points_to) {
        (_, Some(table)) => {
            let key =
                format!("(SELECT p.oid FROM {table} p WHERE p.oid <> t.{name}::oid ORDER BY p.oid");
            vec![format!("{key} DESC LIMIT 1)"), format!("{key} LIMIT 1)")]
        }
        ("boolean", _) => vec![format!("NOT t.{name}")],
        ("text" | "name", _) => vec![format!("coalesce(t.{name}::text, '') || 'x'")],
        ("smallint" | "integer" | "bigint", _) => vec![format!("t.{name} + 1")],
        ("real" | "double precision", _) => vec![format!("t.{name} + 1")],
        ("text[]", _) => vec![format!("array_append(t.{name}, 'x=1')")],
        ("aclitem[]", _) => vec!["'{someone=rwaU/postgres}'".to_string()],
        _ => vec![taken],
    }
}

/// Whether the diff tells the change; `Err` with why there is no saying.
fn is_told(client: &mut Client, update: &str) -> Result<bool, String> {
    client.batch_execute("SAVEPOINT s").expect("a savepoint");
    let told = client.execute(update, &[]).and_then(|count| match count {
        0 => Ok(None),
        _ => client
            .query_one("SELECT count(*) FROM fork_diff_schema('f')", &[])
            .map(|row| Some(row.get::<_, i64>(0) > 0)),
    });
    client
        .batch_execute("ROLLBACK TO s; RELEASE s")
        .unwrap_or_else(|error| panic!("{update}: {error}"));
    match told {
        Ok(Some(told)) => Ok(told),
        Ok(None) => Err("no row".into()),
        Err(error) => Err(error
            .as_db_error()
            .map_or(error.to_string(), |it| it.message().into())),
    }
}

fn look_at(client: &mut Client, column: &Column) -> Result<(), String> {
    let Column {
        catalog,
        name,
        first,
        ..
    } = column;
    let toast = "SELECT oid FROM pg_class WHERE relnamespace = 'pg_toast'::regnamespace";
    let users = match catalog.as_str() {
        // Not those of TOAST tables.
        "pg_attribute" => {
            format!("t.{first} >= 16384 AND t.attnum > 0 AND t.attrelid NOT IN ({toast})")
        }
        // Those that do a constraint's work are compared by the constraint.
        "pg_trigger" => format!("t.{first} >= 16384 AND NOT t.tgisinternal"),
        "pg_class" => "t.oid >= 16384 AND t.relnamespace <> 'pg_toast'::regnamespace".to_string(),
        "pg_index" => format!("t.{first} >= 16384 AND t.indexrelid NOT IN ({toast})"),
        _ => format!("t.{first}::oid >= 16384"),
    };
    let found = format!(
        "SELECT t.ctid::text FROM {catalog} t WHERE {users} ORDER BY (t.{name} IS NOT NULL) DESC, md5(t.ctid::text) LIMIT 8"
    );
    let rows = client
        .query(&found, &[])
        .map_err(|error| error.to_string())?;
    let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let mut why = "no row of a user's".to_string();
    for value in others(column) {
        let all = format!(
            "UPDATE {catalog} t SET {name} = {value} WHERE {users} AND ({value}) IS NOT NULL"
        );
        if is_told(client, &all) == Ok(true) {
            return Ok(());
        }
        for row in &rows {
            let update = format!(
                "UPDATE {catalog} t SET {name} = {value} WHERE t.ctid = '{row}' AND ({value})::text IS DISTINCT FROM t.{name}::text"
            );
            match is_told(client, &update) {
                Ok(true) => return Ok(()),
                Ok(false) => why = format!("not told: {update}"),
                Err(error) if why.starts_with("not told") => drop(error),
                Err(error) => why = format!("{error}: {update}"),
            }
        }
    }
    Err(why)
}

/// One of two tests beside each other looks at every other column.
#[test]
fn each_column_of_each_catalog_is_compared_or_has_a_reason() {
    look_at_every_other(0);
}

#[test]
fn the_other_columns_are_compared_or_have_reasons() {
    look_at_every_other(1);
}

fn look_at_every_other(first: usize) {
    let cluster = Cluster::new("");
    cluster.sql("postgres", "CREATE DATABASE prod");
    let made = cluster.script("prod", &format!("{}\n{SET_UP}", changes::SET_UP));
    assert!(made.stderr.is_empty(), "{made:?}");
    cluster.sql("postgres", "SELECT fork_create('prod', 'f')");
    let mut client = cluster.client("f");
    let all = columns(&mut client);
    assert!(all.len() > 500);
    let mut reasons: BTreeMap<String, &str> = BTreeMap::new();
    for (list, reason) in COLUMNS {
        for column in list.split_whitespace() {
            assert!(
                reasons.insert(column.into(), reason).is_none(),
                "{column} twice"
            );
        }
    }
    for (catalog, _) in CATALOGS {
        assert!(
            all.iter().any(|it| it.catalog == *catalog),
            "there is no {catalog}"
        );
    }
    client
        .batch_execute("SET allow_system_table_mods = on; BEGIN")
        .expect("begun");
    let mut wrong = Vec::new();
    // To begin further on.
    let from = std::env::var("PG_FORK_CATALOG").ok();
    for (n, column) in all.iter().enumerate() {
        let key = format!("{}.{}", column.catalog, column.name);
        // Its number names a row, and nothing else.
        let known = reasons.remove(&key).is_some() || column.name == "oid";
        if known || CATALOGS.iter().any(|it| it.0 == column.catalog) {
            continue;
        }
        if n % 2 != first || from.as_ref().is_some_and(|from| *from > column.catalog) {
            continue;
        }
        if let Err(why) = look_at(&mut client, column) {
            println!("{key}: {why}");
            wrong.push(format!("{key}: {why}"));
        }
    }
    assert!(reasons.is_empty(), "there are no such columns: {reasons:?}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
