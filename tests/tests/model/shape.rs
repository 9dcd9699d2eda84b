//! What a database is thought to hold, so that statements can be made up that mean something.
//!
//! It need not be exact: a statement that fails must fail in the twin as well.

/// Rows whose `id` leaves no rest here are left alone by everyone but an open transaction.
pub const HELD_ROWS: u32 = 7;

#[derive(Clone)]
pub struct Table {
    pub name: String,
    pub unlogged: bool,
    /// The next `id`. Ids only grow.
    pub next: usize,
    /// Names of indexes, and whether CLUSTER can use it.
    pub indexes: Vec<(String, bool)>,
    /// Columns beside id, k and v.
    pub columns: Vec<String>,
    /// Open transactions with locks on some rows.
    pub rows_held: usize,
    /// How many of these have locked them FOR KEY SHARE and no more: others can do so as well.
    pub key_shared: usize,
    /// An open transaction holds an exclusive lock.
    pub whole_held: bool,
}

impl Table {
    pub fn new(name: String) -> Self {
        Table {
            name,
            unlogged: false,
            next: 1,
            indexes: Vec::new(),
            columns: Vec::new(),
            rows_held: 0,
            key_shared: 0,
            whole_held: false,
        }
    }

    /// What keeps a WHERE clause off the rows that an open transaction has locked.
    pub fn guard(&self) -> String {
        if self.rows_held == 0 {
            return String::new();
        }
        format!(" AND id % {HELD_ROWS} <> 0")
    }

    pub fn is_free(&self) -> bool {
        self.rows_held == 0 && !self.whole_held
    }

    /// Whether another transaction can lock the held rows FOR KEY SHARE, or update them.
    pub fn is_shared(&self) -> bool {
        self.rows_held == self.key_shared && !self.whole_held
    }
}

#[derive(Clone, Default)]
pub struct Shape {
    pub tables: Vec<Table>,
    pub sequences: Vec<String>,
    pub objects: Vec<u32>,
}

impl Shape {
    /// The shape of a fork: nobody holds a lock in it.
    pub fn fork(&self) -> Self {
        let mut fork = self.clone();
        for table in &mut fork.tables {
            (table.rows_held, table.key_shared, table.whole_held) = (0, 0, false);
        }
        fork
    }

    pub fn table(&mut self, name: &str) -> Option<&mut Table> {
        self.tables.iter_mut().find(|table| table.name == name)
    }

    pub fn is_free(&self) -> bool {
        self.tables.iter().all(Table::is_free)
    }
}
