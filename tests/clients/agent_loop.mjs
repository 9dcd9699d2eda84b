// An agent's loop by node-postgres: try a migration in a fork, look at it, drop the fork.
//
// agent_loop.mjs HOST LOOPS
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

// Debian's packages lie where `require` looks, and `import` does not.
const pg = createRequire(import.meta.url)('pg');

const migration = [
  'CREATE TABLE addresses (user_id int PRIMARY KEY REFERENCES users, address text NOT NULL)',
  'INSERT INTO addresses SELECT id, address FROM users',
  'ALTER TABLE users DROP COLUMN address',
];
// Two users share a name.
const broken = ['ALTER TABLE users ADD UNIQUE (name)'];

const [host, loops] = [process.argv[2], Number(process.argv[3])];

async function connect(database) {
  const client = new pg.Client({ host, user: 'postgres', database });
  await client.connect();
  return client;
}

async function value(client, sql, args = []) {
  const { rows } = await client.query({ text: sql, values: args, rowMode: 'array' });
  return rows[0][0];
}

// Runs the migration in a fork of its own; what the check resolves to.
async function attempt(prod, statements, check) {
  const fork = await value(prod, "SELECT fork_create('prod')");
  try {
    const client = await connect(fork);
    try {
      await client.query('BEGIN');
      for (const statement of statements) await client.query(statement);
      await client.query('COMMIT');
      return await check(client);
    } finally {
      await client.end();
    }
  } finally {
    assert.equal(await value(prod, 'SELECT fork_drop($1)', [fork]), true);
  }
}

async function moved(client) {
  const columns = await value(
    client,
    `SELECT count(*)::int FROM information_schema.columns
     WHERE table_name = 'users' AND column_name = 'address'`,
  );
  assert.equal(columns, 0);
  return value(client, 'SELECT count(*)::int FROM addresses JOIN users ON id = user_id');
}

const prod = await connect('prod');
const users = await value(prod, 'SELECT count(*)::int FROM users');
for (let loop = 0; loop < loops; loop++) {
  assert.equal(await attempt(prod, migration, moved), users);
  await assert.rejects(attempt(prod, broken, () => 'not refused'), { code: '23505' });
}
assert.equal(await value(prod, "SELECT to_regclass('addresses') IS NULL"), true);
assert.equal(await value(prod, 'SELECT count(address)::int FROM users'), users);
await prod.end();
console.log(`${loops} loops`);
