// Speaks TLS in front of servers on loopback: FRONTS is a list of {port, to, header, value, clients}. Certificate, key and
// authority are in the folder DIR; `clients` answers 403 to everyone without a certificate of that authority, `header` 401 to
// everyone who does not send it with `value`.
const {readFileSync} = require('fs');
const http = require('http');
const https = require('https');

const file = name => readFileSync(`${process.env.DIR}/${name}`);
const tls = {cert: file('tls.crt'), key: file('tls.key'), ca: file('ca.crt')};

for (const {port, to, header, value, clients = false} of JSON.parse(process.env.FRONTS)) {
  const relay = (request, answer) => {
    if (clients && !request.socket.authorized) {
      request.resume();
      answer.writeHead(403).end('no certificate');
      return;
    }
    if (header && request.headers[header] !== value) {
      request.resume();
      answer.writeHead(401).end('no credential');
      return;
    }
    const headers = {...request.headers, host: `127.0.0.1:${to}`};
    const onward = http.request({host: '127.0.0.1', port: to, path: request.url, method: request.method, headers}, reply => {
      answer.writeHead(reply.statusCode, reply.headers);
      answer.flushHeaders();
      reply.pipe(answer);
    });
    onward.on('error', () => answer.destroy());
    answer.on('close', () => onward.destroy());
    request.pipe(onward);
  };
  https.createServer({...tls, requestCert: clients, rejectUnauthorized: false}, relay).listen(port);
}
