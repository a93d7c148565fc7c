// Works with a store as a program with ioredis does: calls, pipelines, transactions, a scan as a stream, messages.
"use strict";

const assert = require("node:assert");
const Redis = require("ioredis");

async function work(url) {
  const db = new Redis(url, { connectionName: "ioredis" });
  await db.flushdb();
  assert.strictEqual(await db.set("a", "1", "EX", 1000), "OK");
  assert.strictEqual(await db.get("a"), "1");
  assert.strictEqual(await db.set("a", "2", "NX"), null);
  const ttl = await db.ttl("a");
  assert.ok(ttl > 990 && ttl <= 1000);
  assert.strictEqual(await db.incrby("n", 5), 5);
  assert.strictEqual(await db.mset({ x: "1", y: "2" }), "OK");
  assert.deepStrictEqual(await db.mget("x", "nothing", "y"), ["1", null, "2"]);
  assert.deepStrictEqual(await db.getBuffer("x"), Buffer.from("1"));
  assert.strictEqual(await db.del("x", "y"), 2);
  await assert.rejects(db.incr("a", "too many"), /wrong number of arguments for 'incr' command/);

  assert.deepStrictEqual(await db.pipeline().set("p", "text").incr("p").get("p").exec().then((replies) =>
    replies.map(([error, value]) => (error ? error.message : value))),
    ["OK", "ERR value is not an integer or out of range", "text"]);
  assert.deepStrictEqual(await db.multi().set("t", "1").incr("t").get("t").exec(), [[null, "OK"], [null, 2], [null, "2"]]);

  const other = new Redis(url);
  await db.watch("t");
  await other.set("t", "9");
  assert.strictEqual(await db.multi().set("t", "0").exec(), null);

  await db.mset(Object.fromEntries(Array.from({ length: 200 }, (_, number) => [`s:${number}`, String(number)])));
  const found = new Set();
  for await (const keys of db.scanStream({ match: "s:*", count: 50 })) keys.forEach((key) => found.add(key));
  assert.strictEqual(found.size, 200);

  const heard = new Redis(url);
  await heard.psubscribe("__keyspace@0__:h*");
  const message = new Promise((resolve) => heard.on("pmessage", (_, channel, event) => resolve([channel, event])));
  await db.set("h1", "1");
  assert.deepStrictEqual(await message, ["__keyspace@0__:h1", "set"]);

  assert.strictEqual(await db.client("GETNAME"), "ioredis");
  assert.match(await db.info("server"), /redis_version:/);
  for (const each of [db, other, heard]) await each.quit();
}

work(process.argv[2]).then(
  () => console.log("done"),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
