package collection

func discovery() chapter {
	return chapter{"Discovery", "What a client finds out by the issuer's URL alone.", []step{
		{
			op: "metadata", auth: none, title: "Read the metadata",
			why:    "The first request: it also chooses a name for this run, which all that is made bears.",
			before: []string{`pm.collectionVariables.set("run", Date.now().toString(36));`},
			holds: []holds{
				{"its endpoints are the issuer's", `answer.token_endpoint.indexOf(answer.issuer) === 0 && answer.jwks_uri.indexOf(answer.issuer) === 0`},
				{"it takes client credentials", `answer.grant_types_supported.indexOf("client_credentials") >= 0`},
			},
			keep: []keep{{"issuer", "issuer"}},
		},
		{op: "openidMetadata", auth: none, title: "The same for OpenID Connect", holds: []holds{
			{"it is of the same issuer", `answer.issuer === pm.collectionVariables.get("issuer")`},
		}},
		{op: "jwks", auth: none, title: "Read the public keys", holds: []holds{
			{"there is a key, and no private half", `answer.keys.length > 0 && answer.keys.every(function (key) { return key.d === undefined; })`},
		}},
	}}
}

func tokens() chapter {
	return chapter{"Tokens", "The operator's API key becomes a token, with which all that follows is done.", []step{
		{
			op: "token", auth: none, title: "Exchange the API key for a token", form: exchange("api_key"),
			holds: []holds{{"it is a bearer token for minutes", `answer.token_type === "Bearer" && answer.expires_in > 0 && answer.expires_in <= 3600`}},
			keep:  []keep{{"token", "access_token"}},
		},
		{
			op: "jwks", auth: none, title: "Read the token as a JWT",
			why:  "Takes the token apart and finds its key among the public ones. The signature is for a library to check, or for POST /v1/decisions.",
			test: jwtTest,
		},
	}}
}

// jwtTest has no library: not every program that runs collections has the same.
var jwtTest = []string{
	`function part(token, n) {`,
	`    var digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";`,
	`    var text = token.split(".")[n], out = "", bits = 0, have = 0;`,
	`    for (var i = 0; i < text.length; i++) {`,
	`        bits = ((bits << 6) | digits.indexOf(text.charAt(i))) & 0xffff;`,
	`        have += 6;`,
	`        if (have >= 8) {`,
	`            have -= 8;`,
	`            out += String.fromCharCode((bits >> have) & 0xff);`,
	`        }`,
	`    }`,
	`    return JSON.parse(out);`,
	`}`,
	`pm.test("its header names its type and a public key", function () {`,
	`    var header = part(pm.collectionVariables.get("token"), 0);`,
	`    pm.expect(header.typ).to.equal("at+jwt");`,
	`    var found = pm.response.json().keys.filter(function (key) { return key.kid === header.kid; });`,
	`    pm.expect(found.length).to.equal(1);`,
	`    pm.expect(found[0].alg).to.equal(header.alg);`,
	`});`,
	`pm.test("its claims name issuer, audience and end", function () {`,
	`    var claims = part(pm.collectionVariables.get("token"), 1), issuer = pm.collectionVariables.get("issuer");`,
	`    pm.expect(claims.iss).to.equal(issuer);`,
	`    pm.expect([].concat(claims.aud)).to.include(issuer);`,
	`    pm.expect(claims.exp * 1000).to.be.above(Date.now());`,
	`    pm.expect(claims.exp - claims.iat).to.be.within(1, 3600);`,
	`});`,
}
