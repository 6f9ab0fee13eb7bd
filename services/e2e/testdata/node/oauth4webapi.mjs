// Takes an unmodified OAuth client through all that Quash's endpoints offer to a
// machine. The input is JSON on standard input; see clients_test.go.

import assert from "node:assert/strict";
import { text } from "node:stream/consumers";
import * as oauth from "oauth4webapi";

const given = JSON.parse(await text(process.stdin));
const issuer = new URL(given.issuer);
const options = { [oauth.allowInsecureRequests]: issuer.protocol === "http:" };
const exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange";
const accessToken = "urn:ietf:params:oauth:token-type:access_token";

async function discover(algorithm) {
  return oauth.processDiscoveryResponse(issuer, await oauth.discoveryRequest(issuer, { ...options, algorithm }));
}

const as = await discover("oauth2"); // RFC 8414
assert.deepEqual(await discover("oidc"), as);
for (const grant of ["client_credentials", exchangeGrant]) assert(as.grant_types_supported.includes(grant), grant);

const client = { client_id: given.client.id };
const basic = oauth.ClientSecretBasic(given.client.secret);
const post = oauth.ClientSecretPost(given.client.secret);
const key = { client_id: "key_" + given.key.id }; // an API key is its own client
const byKey = oauth.ClientSecretBasic(given.key.secret);

async function credentials(auth, parameters = {}) {
  const answer = await oauth.clientCredentialsGrantRequest(as, client, auth, new URLSearchParams(parameters), options);
  return oauth.processClientCredentialsResponse(as, client, answer);
}

async function exchange(who, auth, secret, parameters = {}) {
  const form = new URLSearchParams({ subject_token: secret, subject_token_type: "urn:quash:token-type:api-key", ...parameters });
  const answer = await oauth.genericTokenEndpointRequest(as, who, auth, exchangeGrant, form, options);
  return oauth.processGenericTokenEndpointResponse(as, who, answer);
}

// Strict RFC 9068, with the keys that the metadata names.
async function validate(token, audience = given.issuer) {
  const request = new Request(new URL("/orders", given.issuer), { headers: { authorization: `Bearer ${token}` } });
  return oauth.validateJwtAccessToken(as, request, audience, options);
}

async function introspect(who, auth, token, parameters = {}) {
  const answer = await oauth.introspectionRequest(as, who, auth, token, { ...options, additionalParameters: parameters });
  return oauth.processIntrospectionResponse(as, who, answer);
}

async function revoke(who, auth, token, parameters = {}) {
  const answer = await oauth.revocationRequest(as, who, auth, token, { ...options, additionalParameters: parameters });
  return oauth.processRevocationResponse(answer);
}

function refused(error, status) {
  return (e) => {
    assert(e instanceof oauth.ResponseBodyError || e instanceof oauth.WWWAuthenticateChallengeError, String(e));
    assert.equal(e.status, status);
    if (e instanceof oauth.ResponseBodyError) assert.equal(e.error, error);
    else assert.equal(e.cause[0].scheme, "basic");
    return true;
  };
}

// client credentials, by both ways of authentication
for (const auth of [basic, post]) {
  const tok = await credentials(auth, { scope: "orders:read" });
  assert.equal(tok.token_type, "bearer");
  assert.equal(tok.scope, "orders:read");
  assert(tok.expires_in > 0 && tok.expires_in <= 600, tok.expires_in);
  const claims = await validate(tok.access_token);
  assert.equal(claims.sub, client.client_id);
  assert.equal(claims.client_id, client.client_id);
}
await assert.rejects(credentials(oauth.ClientSecretBasic(given.key.secret)), refused("invalid_client", 401));
await assert.rejects(credentials(oauth.ClientSecretPost("x")), refused("invalid_client", 401));
await assert.rejects(credentials(basic, { scope: "orders:write" }), refused("invalid_scope", 400));
await assert.rejects(credentials(basic, { resource: "https://elsewhere.example" }), refused("invalid_target", 400));

// token exchange: by a client that names itself and no more, by one that
// authenticates, and by none
const nobody = () => {};
for (const auth of [oauth.None(), byKey, oauth.ClientSecretPost(given.key.secret), nobody]) {
  const tok = await exchange(key, auth, given.key.secret, { requested_token_type: accessToken });
  assert.equal(tok.issued_token_type, accessToken);
  const claims = await validate(tok.access_token);
  assert.equal(claims.sub, given.key.owner);
  assert.equal(claims.client_id, key.client_id);
}
await assert.rejects(exchange(client, basic, given.key.secret), refused("invalid_request", 400)); // another's key
await assert.rejects(exchange(key, nobody, given.mistyped), refused("invalid_request", 400));
await assert.rejects(exchange(key, oauth.None(), given.wide.secret), refused("invalid_request", 400));
const narrow = await exchange(key, nobody, given.wide.secret, { scope: "orders:read" }); // names no client
assert.equal((await validate(narrow.access_token)).scope, "orders:read");

// introspection: for the token's client, and nobody else
const mine = await credentials(basic);
const theirs = await exchange(key, nobody, given.key.secret);
const said = await introspect(client, basic, mine.access_token);
const claims = await validate(mine.access_token);
assert.equal(said.active, true);
for (const name of ["iss", "sub", "client_id", "aud", "scope", "exp", "iat", "jti"]) assert.deepEqual(said[name], claims[name], name);
assert.equal((await introspect(key, byKey, theirs.access_token)).sub, given.key.owner);
assert.deepEqual(await introspect(client, basic, theirs.access_token), { active: false });
assert.deepEqual(await introspect(client, post, "no token"), { active: false });
await assert.rejects(introspect(client, oauth.ClientSecretBasic("x"), mine.access_token), refused("invalid_client", 401));

// revocation: one's own, with a hint right or wrong; another's lives
await assert.rejects(revoke(client, basic, theirs.access_token), refused("invalid_grant", 400));
assert.equal((await introspect(key, byKey, theirs.access_token)).active, true);
await revoke(client, basic, mine.access_token, { token_type_hint: "refresh_token" });
// Another replica may be asked, milliseconds later: fresh asks for what was acknowledged before.
assert.deepEqual(await introspect(client, basic, mine.access_token, { fresh: "true" }), { active: false });
await revoke(client, post, mine.access_token); // again
await revoke(client, post, "no token");

// what is strict says no to a wrong audience and to a changed token
await assert.rejects(validate(theirs.access_token, "https://elsewhere.example"));
await assert.rejects(validate(theirs.access_token.slice(0, -4) + "AAAA"));

console.log("done");
