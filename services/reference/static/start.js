"use strict";
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  docExpansion: "list",
  persistAuthorization: false, // a token is gone with the page
  validatorUrl: null, // nothing is sent elsewhere
});
