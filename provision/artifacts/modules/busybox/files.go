package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// flags splits leading options from operands: letters in `plain` stand alone, letters in
// `valued` take a value, in the same word or the next.
func flags(args []string, plain, valued string) (map[rune]string, []string, error) {
	found := map[rune]string{}
	for len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		word := args[0][1:]
		args = args[1:]
		if word == "-" {
			break
		}
		for index, letter := range word {
			if strings.ContainsRune(plain, letter) {
				found[letter] = ""
				continue
			}
			if !strings.ContainsRune(valued, letter) {
				return nil, nil, fmt.Errorf("unknown option -%c", letter)
			}
			value := word[index+1:]
			if value == "" {
				if len(args) == 0 {
					return nil, nil, fmt.Errorf("option -%c needs a value", letter)
				}
				value, args = args[0], args[1:]
			}
			found[letter] = value
			break
		}
	}
	return found, args, nil
}

func has(found map[rune]string, letter rune) bool {
	_, ok := found[letter]
	return ok
}

func operands(args []string) error {
	if len(args) == 0 {
		return errors.New("missing operand")
	}
	return nil
}

// each runs do on every operand, reports every failure, and fails if one did.
func each(args []string, do func(string) error) error {
	var failures []error
	for _, arg := range args {
		if err := do(arg); err != nil {
			failures = append(failures, err)
		}
	}
	return errors.Join(failures...)
}

func mode(octal string) (fs.FileMode, error) {
	bits, err := strconv.ParseUint(octal, 8, 32)
	if err != nil || bits > 0o7777 {
		return 0, fmt.Errorf("mode %q is not octal", octal)
	}
	result := fs.FileMode(bits & 0o777)
	for bit, flag := range map[uint64]fs.FileMode{
		0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky,
	} {
		if bits&bit != 0 {
			result |= flag
		}
	}
	return result, nil
}

func mkdir(args []string) error {
	found, paths, err := flags(args, "p", "m")
	if err == nil {
		err = operands(paths)
	}
	if err != nil {
		return err
	}
	return each(paths, func(path string) error {
		if has(found, 'p') {
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				return nil
			}
			if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
				return err
			}
		}
		if err := os.Mkdir(path, 0o777); err != nil {
			return err
		}
		if !has(found, 'm') {
			return nil
		}
		wanted, err := mode(found['m'])
		if err != nil {
			return err
		}
		return os.Chmod(path, wanted) // Mkdir's mode is cut by the umask.
	})
}

func rm(args []string) error {
	found, paths, err := flags(args, "rRf", "")
	if err != nil {
		return err
	}
	if !has(found, 'f') {
		if err := operands(paths); err != nil {
			return err
		}
	}
	return each(paths, func(path string) error {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) && has(found, 'f') {
			return nil
		}
		if err != nil {
			return err
		}
		if !info.IsDir() {
			return os.Remove(path)
		}
		if !has(found, 'r') && !has(found, 'R') {
			return fmt.Errorf("%s is a directory", path)
		}
		return os.RemoveAll(path)
	})
}

func chmod(args []string) error {
	found, rest, err := flags(args, "R", "")
	if err != nil {
		return err
	}
	if len(rest) < 2 {
		return errors.New("missing operand")
	}
	wanted, err := mode(rest[0])
	if err != nil {
		return err
	}
	return each(rest[1:], func(path string) error {
		if !has(found, 'R') {
			return os.Chmod(path, wanted)
		}
		return filepath.WalkDir(path, func(inner string, entry fs.DirEntry, err error) error {
			if err != nil || entry.Type()&fs.ModeSymlink != 0 {
				return err
			}
			return os.Chmod(inner, wanted)
		})
	})
}

func cp(args []string) error {
	_, paths, err := flags(args, "f", "")
	if err != nil {
		return err
	}
	if len(paths) < 2 {
		return errors.New("missing operand")
	}
	target := paths[len(paths)-1]
	info, err := os.Stat(target)
	into := err == nil && info.IsDir()
	return each(paths[:len(paths)-1], func(path string) error {
		to := target
		if into {
			to = filepath.Join(target, filepath.Base(path))
		}
		from, err := os.Open(path)
		if err != nil {
			return err
		}
		defer from.Close()
		status, err := from.Stat()
		if err != nil {
			return err
		}
		out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, status.Mode().Perm())
		if err != nil {
			return err
		}
		_, err = io.Copy(out, from)
		return errors.Join(err, out.Close())
	})
}

func cat(args []string) error {
	if len(args) == 0 {
		args = []string{"-"}
	}
	return each(args, func(path string) error {
		file := os.Stdin
		if path != "-" {
			opened, err := os.Open(path)
			if err != nil {
				return err
			}
			defer opened.Close()
			file = opened
		}
		_, err := io.Copy(os.Stdout, file)
		return err
	})
}

func ls(args []string) error {
	found, paths, err := flags(args, "la1dA", "")
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		paths = []string{"."}
	}
	show := func(name string, info fs.FileInfo) {
		if !has(found, 'l') {
			fmt.Println(name)
			return
		}
		owner := info.Sys().(*syscall.Stat_t)
		fmt.Printf("%s %3d %-8d %-8d %10d %s %s\n", info.Mode(), owner.Nlink, owner.Uid, owner.Gid,
			info.Size(), info.ModTime().UTC().Format("2006-01-02 15:04"), name)
	}
	return each(paths, func(path string) error {
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if !info.IsDir() || has(found, 'd') {
			show(path, info)
			return nil
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			hidden := strings.HasPrefix(entry.Name(), ".")
			if hidden && !has(found, 'a') && !has(found, 'A') {
				continue
			}
			if inner, err := entry.Info(); err == nil {
				show(entry.Name(), inner)
			}
		}
		return nil
	})
}

func touch(args []string) error {
	if err := operands(args); err != nil {
		return err
	}
	return each(args, func(path string) error {
		file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		now := time.Now()
		return errors.Join(file.Close(), os.Chtimes(path, now, now))
	})
}

// stat [-c FORMAT] FILE...; FORMAT knows %a %u %g %s %n %Y.
func stat(args []string) error {
	found, paths, err := flags(args, "", "c")
	if err == nil {
		err = operands(paths)
	}
	if err != nil {
		return err
	}
	format := "  File: %n\n  Size: %s\nAccess: %a  Uid: %u  Gid: %g\nModify: %Y"
	if has(found, 'c') {
		format = found['c']
	}
	return each(paths, func(path string) error {
		var status syscall.Stat_t
		if err := syscall.Lstat(path, &status); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		fmt.Println(strings.NewReplacer(
			"%a", strconv.FormatUint(uint64(status.Mode&0o7777), 8),
			"%u", strconv.FormatUint(uint64(status.Uid), 10),
			"%g", strconv.FormatUint(uint64(status.Gid), 10),
			"%s", strconv.FormatInt(status.Size, 10),
			"%Y", strconv.FormatInt(int64(status.Mtim.Sec), 10),
			"%n", path,
		).Replace(format))
		return nil
	})
}
