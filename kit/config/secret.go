package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

// MaxSecret bounds what a SecretFile may hold, in bytes.
const MaxSecret = 64 << 10

// ErrNoSecret is returned by SecretFile.Read when no path is configured.
var ErrNoSecret = errors.New("no secret file is configured")

// SecretFile is the path of a file that holds a secret. Only the path ever appears in a
// configuration, in a log or in an error.
type SecretFile string

// Read returns the file's content without one trailing newline. It refuses an empty path
// (ErrNoSecret), an empty file, and more than MaxSecret bytes. The file is read anew on every
// call, so a rotated secret is seen.
func (f SecretFile) Read() ([]byte, error) {
	if f == "" {
		return nil, ErrNoSecret
	}
	file, err := os.Open(string(f))
	if err != nil {
		return nil, fmt.Errorf("open secret: %w", err)
	}
	content, err := io.ReadAll(io.LimitReader(file, MaxSecret+1))
	if err := errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("read secret %s: %w", f, err)
	}
	if len(content) > MaxSecret {
		return nil, fmt.Errorf("secret file %s is larger than %d bytes", f, MaxSecret)
	}
	content = bytes.TrimSuffix(bytes.TrimSuffix(content, []byte("\n")), []byte("\r"))
	if len(content) == 0 {
		return nil, fmt.Errorf("secret file %s is empty", f)
	}
	return content, nil
}
