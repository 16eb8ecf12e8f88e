package cli

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"

	"github.com/united-containers/ucn/kit/config"
)

// maxPassphrase bounds a passphrase, in bytes.
const maxPassphrase = 1024

// Errors about passphrases.
var (
	errNoTerminal = errors.New("a passphrase is needed and there is no terminal to ask at: " +
		"give --passphrase-file FILE")
	errDiffer   = errors.New("the two passphrases differ")
	errEmptyNew = errors.New("the passphrase is empty: give one, or --no-passphrase if whoever can " +
		"read the file may have the money")
	errLong = errors.New("the passphrase is longer than 1024 bytes")
)

// columns returns the width of a terminal, 0 for anything else.
func columns(stream any) int {
	width, _ := size(stream)
	return width
}

// rows returns the height of a terminal, 0 for anything else.
func rows(stream any) int {
	_, height := size(stream)
	return height
}

// size returns that of a terminal. One that cannot move its cursor (TERM=dumb) is none to us: what
// is drawn in place would only pile up.
func size(stream any) (width, height int) {
	file, ok := stream.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" || !term.IsTerminal(int(file.Fd())) {
		return 0, 0
	}
	width, height, err := term.GetSize(int(file.Fd()))
	if err != nil || width < 1 || height < 1 {
		return 80, 24
	}
	return width, height
}

// askPassword asks at the terminal of the process, even if standard input is something else.
func askPassword(prompt string) (secret []byte, err error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errNoTerminal
	}
	defer func() { err = errors.Join(err, tty.Close()) }()
	if _, err := fmt.Fprint(tty, prompt); err != nil {
		return nil, errNoTerminal
	}
	secret, err = term.ReadPassword(int(tty.Fd()))
	_, _ = fmt.Fprintln(tty) // the prompt's line ends; nothing hangs on it
	return secret, err
}

// passphrase returns the one that opens a wallet.
func (a *app) passphrase(wallet string) func() ([]byte, error) {
	return func() ([]byte, error) {
		if secret, ok, err := a.passphraseFile(); ok || err != nil {
			return secret, err
		}
		secret, err := a.Password(fmt.Sprintf("Passphrase of wallet %q: ", wallet))
		return bounded(secret, err)
	}
}

// newPassphrase returns the one that is to protect a key: asked for twice.
func (a *app) newPassphrase(plain bool, what string) func() ([]byte, error) {
	return func() ([]byte, error) {
		if plain {
			return nil, nil
		}
		if secret, ok, err := a.passphraseFile(); ok || err != nil {
			return secret, err
		}
		secret, err := bounded(a.Password(fmt.Sprintf("New passphrase of %s: ", what)))
		switch {
		case err != nil:
			return nil, err
		case len(secret) == 0:
			return nil, errEmptyNew
		}
		again, err := a.Password("The same again: ")
		switch {
		case err != nil:
			return nil, err
		case !bytes.Equal(secret, again):
			return nil, errDiffer
		}
		return secret, nil
	}
}

func bounded(secret []byte, err error) ([]byte, error) {
	if err == nil && len(secret) > maxPassphrase {
		return nil, errLong
	}
	return secret, err
}

// passphraseFile reads the file that flag or environment name; ok tells whether they do.
func (a *app) passphraseFile() (secret []byte, ok bool, err error) {
	path := a.flags.passphraseFile
	if path == "" {
		path = a.Env("UCN_PASSPHRASE_FILE")
	}
	if path == "" {
		return nil, false, nil
	}
	secret, err = bounded(config.SecretFile(path).Read())
	if err != nil {
		return nil, true, fmt.Errorf("passphrase file: %w", err)
	}
	return secret, true, nil
}
