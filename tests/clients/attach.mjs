// A session of node-postgres moves between a database and its fork, twenty times.
//
// attach.mjs HOST
import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

// Debian's packages lie where `require` looks, and `import` does not.
const pg = createRequire(import.meta.url)('pg');

const [host] = process.argv.slice(2);
const client = new pg.Client({ host, user: 'postgres', database: 'prod' });
await client.connect();
const value = async (query) => Object.values((await client.query(query)).rows[0])[0];
// Prepared once, at the protocol's level, by the driver; planned anew where it is run.
const count = (over) => value({
  name: 'count', text: 'SELECT count(*)::int FROM users WHERE id > $1', values: [over],
});

await client.query('BEGIN');
await assert.rejects(client.query("SELECT fork_attach('f')"), { code: '25001' });
await client.query('ROLLBACK');
await assert.rejects(client.query("SELECT fork_attach('none')"), { code: '3D000' });
for (let n = 1; n <= 20; n++) {
  assert.equal(await count(0), 100);
  assert.equal(await value({ text: 'SELECT fork_attach($1)', values: ['f'] }), 'prod');
  assert.equal(await value('SELECT current_database()'), 'f');
  assert.equal(await count(0), 101 - n);
  await client.query({ text: 'DELETE FROM users WHERE id = $1', values: [n] });
  await assert.rejects(client.query('SELECT * FROM nothing'), { code: '42P01' });
  assert.equal(await count(0), 100 - n);
  assert.equal(await value('SELECT fork_current()'), 'f');
  if (n % 2) await client.query('DISCARD ALL');
  else assert.equal(await value('SELECT fork_detach()'), 'prod');
  assert.equal(await value('SELECT current_database()'), 'prod');
  // What DISCARD ALL has taken away the driver believes to be there still.
  if (n % 2) delete client.connection.parsedStatements.count;
}
await client.end();
console.log('20 moves');
