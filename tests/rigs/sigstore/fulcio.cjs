// Fulcio: checks token and proof of possession as the real one does, then lets the mock issue.
const jose = require('jose');
const { mock, pem, rewrapped, x509 } = require('./adapted.cjs');

module.exports = function fulcio({ routes, json, ca, openid, tick }) {
  const issue = mock.fulcioHandler(ca, { subjectClaim: 'rig_name' }).fn;

  routes['POST /api/v2/signingCert'] = async ({ body, headers }) => {
    const request = JSON.parse(body);
    const token = (headers.authorization || '').replace(/^bearer /i, '');
    let claims;
    try {
      claims = (await jose.jwtVerify(token, openid.publicKey, { audience: 'sigstore' })).payload;
    } catch (error) {
      // Some services repeat the token in their answer; clients must not pass it on.
      return json({ code: 3, message: `invalid identity token ${token}: ${error.code}` }, 400);
    }
    const text = Buffer.from(request.certificateSigningRequest, 'base64').toString();
    const csr = new x509.Pkcs10CertificateRequest(text);
    if (!(await csr.verify())) return json({ message: 'the request is not signed by its key' }, 400);

    const workflow = claims.job_workflow_ref;
    const name = claims.email || (workflow ? `https://github.com/${workflow}` : claims.sub);
    const texts = Object.entries(claims).filter(([, value]) => typeof value === 'string');
    const unsecured = new jose.UnsecuredJWT({ ...Object.fromEntries(texts), rig_name: name }).encode();
    tick('fulcio');
    const answer = await issue(
      JSON.stringify({ certificateSigningRequest: text, credentials: { oidcIdentityToken: unsecured } }),
    );
    if (answer.statusCode >= 400) return json({ message: answer.response }, answer.statusCode);
    const document = JSON.parse(answer.response);
    const chain = document.signedCertificateEmbeddedSct.chain;
    chain.certificates = chain.certificates.map(rewrapped);
    return json(document, answer.statusCode);
  };

  routes['GET /api/v2/trustBundle'] = () =>
    json({ chains: [{ certificates: [pem(ca.rootCertificate)] }] });
};
