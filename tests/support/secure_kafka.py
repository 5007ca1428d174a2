"""A Kafka that asks who you are: SASL_SSL with SCRAM, and an authorizer; the plain listener is the administrator's."""

from __future__ import annotations

import subprocess

from tests.support.kafka import JarBroker, free_port

USER, PASSWORD = "service", "a-secret-of-the-tests"
STORE_PASSWORD = "another-secret"

_SECURE = """\
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
ssl.keystore.type=PKCS12
ssl.keystore.location={folder}/broker.p12
ssl.keystore.password={store_password}
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=false
super.users=User:ANONYMOUS
"""


class SecureBroker(JarBroker):
    """`bootstrap_servers` is the administrator's, `secure_servers` the users'."""

    def _completed(self, properties: str) -> str:
        secure = f"127.0.0.1:{free_port()}"
        self.secure_servers = secure
        self.certificate = self.folder / "broker.pem"
        self._make_certificate()
        lines = [
            f"{line},SASL_SSL://{secure}" if line.startswith(("listeners=", "advertised.listeners=")) else line
            for line in properties.splitlines()
        ]
        more = _SECURE.format(folder=self.folder, store_password=STORE_PASSWORD)
        return "\n".join(lines) + "\n" + more

    def _format_options(self) -> list[str]:
        return ["--add-scram", f"SCRAM-SHA-512=[name={USER},password={PASSWORD}]"]

    def _make_certificate(self) -> None:
        store = ["-alias", "broker", "-keystore", f"{self.folder}/broker.p12", "-storepass", STORE_PASSWORD]
        names = ["-dname", "CN=127.0.0.1", "-ext", "san=ip:127.0.0.1", "-validity", "2"]
        make = ["-genkeypair", "-keyalg", "RSA", "-storetype", "PKCS12", *names]
        for command in (make, ["-exportcert", "-rfc", "-file", str(self.certificate)]):
            subprocess.run(["keytool", *command, *store], check=True, capture_output=True)
