import assert from "node:assert/strict";
import { test } from "node:test";
import "../webcrypto.mjs";
import { canonicalize, parseStrict } from "../../lib/jcs.js";

test("the example of RFC 8785 section 3.2.2 comes out as printed there", () => {
  const value = JSON.parse(
    '{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],' +
      '"string":"\\u20ac$\\u000F\\u000aA\'\\u0042\\u0022\\u005c\\\\\\"\\/","literals":[null,true,false]}',
  );
  // 1E30 is beyond 2^53-1, which envelopes refuse; the rest is the RFC's.
  assert.throws(() => canonicalize(value), TypeError);
  value.numbers.splice(1, 1);
  assert.equal(
    canonicalize(value),
    '{"literals":[null,true,false],"numbers":[333333333.3333333,4.5,0.002,1e-27],"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}',
  );
});

test("members are sorted by UTF-16 code units (RFC 8785 section 3.2.3)", () => {
  const value = { "€": 1, "\r": 2, "\ufb33": 3, 1: 4, "😀": 5, "\u0080": 6, "ö": 7 };
  const names = Object.keys(JSON.parse(canonicalize(value)));
  assert.deepEqual(new Set(names), new Set(Object.keys(value)));
  assert.equal(canonicalize(value), '{"\\r":2,"1":4,"\u0080":6,"ö":7,"€":1,"😀":5,"\ufb33":3}');
});

test("what has no single meaning is refused", () => {
  for (const value of [NaN, Infinity, 2 ** 53, 1e17, 1e300, -(2 ** 53), "\ud800", "a\udc00", { "\ud800": 1 }, () => 1, 1n]) {
    assert.throws(() => canonicalize(value), TypeError);
  }
  let deep = 0;
  for (let level = 0; level < 1000; level++) deep = [deep];
  assert.throws(() => canonicalize(deep), TypeError);
});

test("members that are undefined are left out, as JSON.stringify does", () => {
  assert.equal(canonicalize({ b: undefined, a: [1, "x", null] }), '{"a":[1,"x",null]}');
  assert.equal(canonicalize(2 ** 53 - 1), "9007199254740991");
  assert.equal(canonicalize(-0), "0");
});

test("repeated members are refused in parsing, however they are spelled", () => {
  assert.deepEqual(parseStrict('{"a":[{"b":"\\"x\\":1"},{"b":-12.5e3}],"c":"d\\\\"}').c, "d\\");
  for (const text of ['{"a":1,"a":1}', '{"x":{"a":1,"\\u0061":1}}', '[{"":1,"":2}]', '{"a" : 1, "a"\t:2}']) {
    assert.throws(() => parseStrict(text), SyntaxError, text);
  }
});
