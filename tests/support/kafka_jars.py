"""Apache Kafka's published jars, fetched once by Maven into the user's cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

KAFKA_VERSION = "4.1.1"

_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>prototide</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


class KafkaUnavailableError(Exception):
    """There is no way to a real Kafka on this machine; the message says what was tried."""


def cache_folder() -> Path:
    """Where the jars are kept between runs."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "prototide" / f"kafka-{KAFKA_VERSION}"


def kafka_jars() -> Path:
    """The folder with Kafka and all that it needs; fetched when it is not there yet."""
    target = cache_folder()
    if target.is_dir():
        return target
    if shutil.which("java") is None or shutil.which("mvn") is None:
        raise KafkaUnavailableError("java and mvn are not both installed")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        pom, jars = Path(work, "pom.xml"), Path(work, "jars")
        pom.write_text(_POM)
        copy = ["mvn", "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        done = subprocess.run([*copy, "-DincludeScope=runtime"], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise KafkaUnavailableError(f"Maven could not fetch Kafka {KAFKA_VERSION}: {done.stdout[-500:].strip()}")
        try:
            jars.rename(target)  # atomic: of two fetching at once, one wins and the other's copy goes
        except OSError:
            if not target.is_dir():
                raise
    return target
