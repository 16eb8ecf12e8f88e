// Package network holds the one file that tells a client where a network is and whose it is:
// network.json. A local network writes it into its data folder while it runs; the operator of a
// remote one hands it out.
//
// It holds no secret, but what it says is trusted: the anchor decides which chain a client signs
// for, the operator whom its tokens are meant for. So the file is read strictly and replaced as a
// whole or not at all.
package network

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/united-containers/ucn/chain/block"
	"github.com/united-containers/ucn/chain/sig"
	"github.com/united-containers/ucn/kit/id"
)

// Name is the name of the file in a data folder.
const Name = "network.json"

// MaxSize bounds the file, in bytes.
const MaxSize = 64 << 10

// MaxServices bounds the services that have an address of their own.
const MaxServices = 16

// ErrInvalid is wrapped by the errors of a file that holds something else than a network.
var ErrInvalid = errors.New("not a network file")

// File says where a network is and whose it is.
type File struct {
	// API is host:port of the operator's gRPC services.
	API string `json:"api"`
	// Services has the host:port of services that are not at API, such as
	// {"storage": "files.example:7601"}. At most MaxServices.
	Services map[string]string `json:"services,omitempty"`
	// REST is the address of the same over HTTP, Console that of the web console; may be empty.
	REST    string `json:"rest,omitempty"`
	Console string `json:"console,omitempty"`
	// Bus is the broker's address, such as "nats://127.0.0.1:7622".
	Bus string `json:"bus,omitempty"`
	// Chain is the chain that holds the money; "main" if empty.
	Chain string `json:"chain"`
	// Anchor of that chain, 64 hexadecimal digits.
	Anchor string `json:"anchor"`
	// Operator is the account (ucn1...) whose services answer at API and Bus.
	Operator string `json:"operator"`
	// Genesis is the path of the chain's genesis (canonical bytes), absolute or relative to this
	// file; may be empty.
	Genesis string `json:"genesis,omitempty"`
	// TLS encrypts the way to API; needed off this machine. CA is a PEM file of authorities to
	// trust instead of the system's, absolute or relative to this file.
	TLS bool   `json:"tls,omitempty"`
	CA  string `json:"ca,omitempty"`
	// PID is the process of a local network; 0 for a remote one.
	PID int `json:"pid,omitempty"`
}

// DefaultDir returns the data folder when nobody says otherwise: /var/lib/ucn for root, else
// .local/share/ucn in the home folder (or below XDG_DATA_HOME).
func DefaultDir() string {
	if os.Geteuid() == 0 {
		return "/var/lib/ucn"
	}
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "ucn")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "ucn"
	}
	return filepath.Join(home, ".local", "share", "ucn")
}

// Path returns the path of the network file of a data folder.
func Path(data string) string { return filepath.Join(data, Name) }

// Load reads and judges a network file. The paths in it come back absolute. Errors wrap
// fs.ErrNotExist or ErrInvalid, and name the file.
func Load(path string) (File, error) {
	raw, err := readBounded(path)
	if err != nil {
		return File{}, fmt.Errorf("read network file: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var f File
	if err := d.Decode(&f); err != nil {
		return File{}, fmt.Errorf("%s: %w: %w", path, ErrInvalid, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return File{}, fmt.Errorf("%s: %w: something follows the object", path, ErrInvalid)
	}
	if f.Chain == "" {
		f.Chain = block.Main
	}
	if err := f.Validate(); err != nil {
		return File{}, fmt.Errorf("%s: %w", path, err)
	}
	for _, inner := range []*string{&f.Genesis, &f.CA} {
		if *inner != "" && !filepath.IsAbs(*inner) {
			*inner = filepath.Join(filepath.Dir(path), *inner)
		}
	}
	return f, nil
}

func readBounded(path string) (raw []byte, err error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	raw, err = io.ReadAll(io.LimitReader(file, MaxSize+1))
	if err == nil && len(raw) > MaxSize {
		return nil, fmt.Errorf("%s: %w: longer than %d bytes", path, ErrInvalid, MaxSize)
	}
	return raw, err
}

// Save writes the file so that readers see the old one or the new one, never less, also after a
// power failure. The folder must exist.
func Save(path string, f File) (err error) {
	if f.Chain == "" {
		f.Chain = block.Main
	}
	if err := f.Validate(); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("encode network file: %w", err)
	}
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+Name+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write network file: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("write network file: %w", err)
			_ = os.Remove(temporary.Name()) // the error that counts is the first
		}
	}()
	_, err = temporary.Write(append(raw, '\n'))
	if err == nil {
		err = temporary.Sync()
	}
	if err = errors.Join(err, temporary.Close()); err != nil {
		return err
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Validate names the field that is wrong; errors wrap ErrInvalid.
func (f File) Validate() error {
	if _, _, err := net.SplitHostPort(f.API); err != nil && !strings.HasPrefix(f.API, "unix:") {
		return fmt.Errorf("%w: api %q is not host:port", ErrInvalid, f.API)
	}
	if len(f.Services) > MaxServices {
		return fmt.Errorf("%w: %d services, at most %d", ErrInvalid, len(f.Services), MaxServices)
	}
	for service, addr := range f.Services {
		if _, _, err := net.SplitHostPort(addr); err != nil || service == "" {
			return fmt.Errorf("%w: services: %q at %q is not host:port", ErrInvalid, service, addr)
		}
	}
	if u, err := url.Parse(f.Bus); err != nil || f.Bus != "" && (u.Scheme == "" || u.Host == "") {
		return fmt.Errorf("%w: bus %q is not like nats://host:port", ErrInvalid, f.Bus)
	}
	if f.Chain != "" && !block.ValidChain(f.Chain) {
		return fmt.Errorf("%w: chain %q", ErrInvalid, f.Chain)
	}
	if _, err := f.AnchorID(); err != nil {
		return err
	}
	if _, err := f.OperatorID(); err != nil {
		return err
	}
	if f.PID < 0 {
		return fmt.Errorf("%w: pid %d", ErrInvalid, f.PID)
	}
	return nil
}

// Addr returns where a service of the operator answers.
func (f File) Addr(service string) string {
	if addr, has := f.Services[service]; has {
		return addr
	}
	return f.API
}

// AnchorID returns the anchor.
func (f File) AnchorID() (sig.Anchor, error) {
	raw, err := hex.DecodeString(f.Anchor)
	if err != nil || len(raw) != sig.AnchorSize {
		return sig.Anchor{}, fmt.Errorf("%w: anchor %q is not %d hexadecimal digits", ErrInvalid,
			f.Anchor, 2*sig.AnchorSize)
	}
	return sig.Anchor(raw), nil
}

// OperatorID returns the operator's account.
func (f File) OperatorID() (sig.AccountID, error) {
	account, err := id.ParseBech32(id.Account, f.Operator)
	if err != nil {
		return sig.AccountID{}, fmt.Errorf("%w: operator: %w", ErrInvalid, err)
	}
	return account, nil
}
