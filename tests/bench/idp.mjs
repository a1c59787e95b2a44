// A certified identity provider that says yes to everything as one person, for Apache's mod_auth_openidc in the benchmark.
//   node tests/bench/idp.mjs PORT REDIRECT
import http from "node:http";
import Provider from "oidc-provider";

const [port, redirect] = process.argv.slice(2);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{ client_id: "bench", client_secret: "a-long-secret-of-the-benchmark", redirect_uris: [redirect] }],
  features: { devInteractions: { enabled: false } },
  pkce: { required: () => false },
  findAccount: async (_, id) => ({ accountId: id, claims: async () => ({ sub: id }) }),
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
});
const callback = provider.callback();
http.createServer(async (request, response) => {
  if (!request.url.startsWith("/interaction/")) return callback(request, response);
  const grant = new provider.Grant({ accountId: "vera", clientId: "bench" });
  grant.addOIDCScope("openid");
  return provider.interactionFinished(request, response, { login: { accountId: "vera" }, consent: { grantId: await grant.save() } }, { mergeWithLastSubmission: false });
}).listen(Number(port), "127.0.0.1", () => console.log("ready"));
