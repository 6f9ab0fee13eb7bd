package identity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"
)

// Set is the identities of one Quash, in a directory.
type Set struct {
	dir      string
	operator nkeys.KeyPair
	accounts map[string]nkeys.KeyPair
	roles    map[string]nkeys.KeyPair // sign the users of a role

	// OperatorJWT and AccountJWTs are what a server is configured with; the
	// latter by account name.
	OperatorJWT string
	AccountJWTs map[string]string
}

// Create makes all identities in dir, which must not exist or be empty. They
// appear there at once or not at all: a crash leaves no half of them.
func Create(dir string) (*Set, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".identity-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	s, err := open(tmp, newSeed)
	if err != nil {
		return nil, err
	}
	if err := s.writeUsers(); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return nil, fmt.Errorf("identities for %s: %w", dir, err)
	}
	s.dir = dir
	return s, nil
}

// Load reads what Create made, and signs the accounts by the rules of this
// version. A missing one is fs.ErrNotExist.
func Load(dir string) (*Set, error) { return open(dir, readSeed) }

// rolePrefix begins the names of the seeds that sign the users of a role.
const rolePrefix = "role-"

// open gets every key by seed and signs the accounts.
func open(dir string, seed func(path string, create newPair) (nkeys.KeyPair, error)) (*Set, error) {
	s := &Set{dir: dir, accounts: map[string]nkeys.KeyPair{}, roles: map[string]nkeys.KeyPair{}}
	var err error
	if s.operator, err = seed(filepath.Join(dir, "operator.nk"), nkeys.CreateOperator); err != nil {
		return nil, err
	}
	for _, name := range accountNames() {
		if s.accounts[name], err = seed(filepath.Join(dir, name+".nk"), nkeys.CreateAccount); err != nil {
			return nil, err
		}
	}
	for role := range accountOf() {
		if s.roles[role], err = seed(filepath.Join(dir, rolePrefix+role+".nk"), nkeys.CreateAccount); err != nil {
			return nil, err
		}
	}
	return s, s.sign()
}

// Ensure loads the identities of dir, or makes them if there are none. Those of
// roles that an older version did not have are added.
func Ensure(dir string) (*Set, error) {
	if _, err := os.Stat(filepath.Join(dir, "operator.nk")); errors.Is(err, fs.ErrNotExist) {
		return Create(dir)
	}
	s, err := open(dir, func(path string, create newPair) (nkeys.KeyPair, error) {
		pair, err := readSeed(path, create)
		if errors.Is(err, fs.ErrNotExist) && strings.HasPrefix(filepath.Base(path), rolePrefix) {
			return newSeed(path, create)
		}
		return pair, err
	})
	if err != nil {
		return nil, err
	}
	return s, s.writeUsers()
}

// writeUsers makes the services' users that are not there.
func (s *Set) writeUsers() error {
	for role := range accountOf() {
		if role == guardRole {
			continue
		}
		if _, err := os.Stat(s.Creds(role)); err == nil {
			continue
		}
		if err := s.writeUser(role, role); err != nil {
			return err
		}
	}
	return nil
}

// Creds returns the path of the credentials of a service's user, or of a guard.
func (s *Set) Creds(name string) string {
	if _, ok := accountOf()[name]; ok {
		return filepath.Join(s.dir, "creds", name+".creds")
	}
	return filepath.Join(s.dir, "guards", name+".creds")
}

// guardName keeps a guard's name one token of a subject and one file name.
var guardName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// AddGuard makes the identity of a guard, if it is not there, and returns the
// path of its credentials. Names are lower-case letters, digits, "-" and "_";
// those of the services are taken.
func (s *Set) AddGuard(name string) (string, error) {
	if _, taken := accountOf()[name]; taken || !guardName.MatchString(name) {
		return "", fmt.Errorf("%q can't be the name of a guard: use lower-case letters, digits, - and _, at most 63, and not the name of a service", name)
	}
	path := s.Creds(name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	return path, s.writeUser(name, guardRole)
}

// Admin writes credentials with every right in one account to path. It is for
// backup and restore, and for tests that damage things; no service uses it.
func (s *Set) Admin(path, account string) error {
	signer, ok := s.accounts[account]
	if !ok {
		return fmt.Errorf("there is no account %q", account)
	}
	data, err := credentials("admin", signer, nil)
	if err != nil {
		return err
	}
	return writeFile(path, data)
}

// AccountKey returns the public key of an account.
func (s *Set) AccountKey(name string) (string, error) { return s.accounts[name].PublicKey() }

// sign makes the JWTs of operator and accounts.
func (s *Set) sign() error {
	claims := map[string]*jwt.AccountClaims{}
	for _, name := range accountNames() {
		key, err := s.accounts[name].PublicKey()
		if err != nil {
			return err
		}
		claims[name] = jwt.NewAccountClaims(key)
		claims[name].Name = name
	}
	wireUp(claims)
	for role, account := range accountOf() {
		key, err := s.roles[role].PublicKey()
		if err != nil {
			return err
		}
		claims[account].SigningKeys.AddScopedSigner(scope(role, key))
	}
	s.AccountJWTs = map[string]string{}
	for name, c := range claims {
		// The library says what is wrong with a claim only when asked.
		results := jwt.CreateValidationResults()
		c.Validate(results)
		if errs := results.Errors(); len(errs) > 0 {
			return fmt.Errorf("account %s: %w", name, errors.Join(errs...))
		}
		token, err := c.Encode(s.operator)
		if err != nil {
			return fmt.Errorf("account %s: %w", name, err)
		}
		s.AccountJWTs[name] = token
	}
	key, err := s.operator.PublicKey()
	if err != nil {
		return err
	}
	o := jwt.NewOperatorClaims(key)
	o.Name = "quash"
	o.SystemAccount = claims[Sys].Subject
	s.OperatorJWT, err = o.Encode(s.operator)
	return err
}

// writeUser makes a new user of a role.
func (s *Set) writeUser(name, role string) error {
	data, err := credentials(name, s.roles[role], s.accounts[accountOf()[role]])
	if err != nil {
		return fmt.Errorf("user %s: %w", name, err)
	}
	return writeFile(s.Creds(name), data)
}

// credentials makes a user and returns its file. With an account, signer is the
// key of a role, and the user has the rights of it and none of its own.
func credentials(name string, signer, account nkeys.KeyPair) ([]byte, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	key, err := pair.PublicKey()
	if err != nil {
		return nil, err
	}
	c := jwt.NewUserClaims(key)
	c.Name = name
	if account != nil {
		c.SetScoped(true)
		if c.IssuerAccount, err = account.PublicKey(); err != nil {
			return nil, err
		}
	}
	token, err := c.Encode(signer)
	if err != nil {
		return nil, err
	}
	seed, err := pair.Seed()
	if err != nil {
		return nil, err
	}
	return jwt.FormatUserConfig(token, seed)
}
