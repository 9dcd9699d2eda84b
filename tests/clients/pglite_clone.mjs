// How many milliseconds PGlite's clone() takes: `node pglite_clone.mjs ROWS TIMES`, one number a line.
import { PGlite } from '@electric-sql/pglite';

const [rows, times] = process.argv.slice(2).map(Number);
const source = await PGlite.create();
await source.exec(`CREATE TABLE accounts (aid int PRIMARY KEY, balance int, filler char(84));
  INSERT INTO accounts SELECT i, 0, '' FROM generate_series(1, ${rows}) i`);
for (let i = 0; i < times; i++) {
  const began = performance.now();
  const copy = await source.clone();
  await copy.query('SELECT balance FROM accounts WHERE aid = 1');
  console.log(performance.now() - began);
  await copy.close();
}
await source.close();
