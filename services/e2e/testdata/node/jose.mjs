// Verifies a token of Quash as a resource server in Node does, with an unmodified
// library: keys from the JWKS that the metadata names, and RFC 9068's type. The
// input is JSON on standard input; see clients_test.go.

import assert from "node:assert/strict";
import { text } from "node:stream/consumers";
import { createRemoteJWKSet, jwtVerify } from "jose";

const given = JSON.parse(await text(process.stdin));
const metadata = await (await fetch(new URL("/.well-known/oauth-authorization-server", given.issuer))).json();
const keys = createRemoteJWKSet(new URL(metadata.jwks_uri));
const expected = { issuer: given.issuer, audience: given.issuer, typ: "at+jwt", algorithms: ["ES256", "EdDSA"], requiredClaims: ["sub", "exp", "iat", "jti", "client_id"] };

const { payload, protectedHeader } = await jwtVerify(given.token, keys, expected);
assert.equal(payload.sub, given.key.owner);
assert.equal(payload.scope, "orders:read");
assert.equal(protectedHeader.typ, "at+jwt");

const [header, body, signature] = given.token.split(".");
const other = Buffer.from(JSON.stringify({ ...payload, sub: "mallory" })).toString("base64url");
await assert.rejects(jwtVerify([header, other, signature].join("."), keys, expected), { code: "ERR_JWS_SIGNATURE_VERIFICATION_FAILED" });
await assert.rejects(jwtVerify([header, body, ""].join("."), keys, expected));
await assert.rejects(jwtVerify(given.token, keys, { ...expected, audience: "https://elsewhere.example" }), { code: "ERR_JWT_CLAIM_VALIDATION_FAILED" });
await assert.rejects(jwtVerify(given.token, keys, { ...expected, typ: "JWT" }), { code: "ERR_JWT_CLAIM_VALIDATION_FAILED" });

console.log("done");
