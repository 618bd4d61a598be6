#!/bin/sh
# Debian packages that the tests use as real peers. As root they are installed; otherwise what is missing is named, and
# the tests that need it are skipped with that name.
set -eu
wanted="postfix dovecot-imapd swaks msmtp mutt curl poppler-utils tesseract-ocr-vie postgresql systemd strace clamav-daemon p7zip-full fonts-liberation2 fonts-dejavu-core chromium tidy golang-go golang-golang-x-mod-dev libjansson4 libwrap0 libpcre3"
missing=
for package in $wanted; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
if [ -z "$missing" ]; then
    :
elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing the tests' peers:$missing" >&2
    apt-get -qq update >/dev/null || true
    # shellcheck disable=SC2086  # a list of words is meant
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing >/dev/null || {
        for package in $missing; do
            DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$package" >/dev/null ||
                echo "could not install $package; its tests will be skipped" >&2
        done
    }
else
    echo "Not root, so these packages are not installed and the tests that need them are skipped:$missing" >&2
fi
cyrus="$(dirname "$0")/../.venv/peers/cyrus"
if [ ! -e "$cyrus/usr/lib/cyrus/bin/imapd" ] && command -v apt-get >/dev/null 2>&1; then
    # A second IMAP server, of another make. Its package and Dovecot's exclude each other, so it is only unpacked; what
    # it needs of Debian's libraries is in the list above.
    (
        mkdir -p "$cyrus" && cd "$cyrus" &&
            apt-get -qq download cyrus-imapd cyrus-common libical3 libxapian30 libzephyr4 sasl2-bin >/dev/null 2>&1 &&
            for file in ./*.deb; do dpkg -x "$file" . && rm "$file"; done
    ) || echo "could not unpack cyrus-imapd; its tests will be skipped" >&2
fi
