package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func echo(args []string) error {
	end := "\n"
	if len(args) > 0 && args[0] == "-n" {
		end, args = "", args[1:]
	}
	_, err := fmt.Print(strings.Join(args, " ") + end)
	return err
}

// env [NAME=VALUE...] [COMMAND [ARGUMENT...]]
func env(args []string) error {
	for len(args) > 0 && strings.Contains(args[0], "=") {
		name, value, _ := strings.Cut(args[0], "=")
		if err := os.Setenv(name, value); err != nil {
			return err
		}
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Println(strings.Join(os.Environ(), "\n"))
		return nil
	}
	program, err := exec.LookPath(args[0])
	if err != nil {
		return err
	}
	return syscall.Exec(program, args, os.Environ())
}

func hostname([]string) error {
	name, err := os.Hostname()
	fmt.Println(name)
	return err
}

// id [-u | -g]
func id(args []string) error {
	found, _, err := flags(args, "ug", "")
	switch {
	case err != nil:
		return err
	case has(found, 'u'):
		fmt.Println(os.Geteuid())
	case has(found, 'g'):
		fmt.Println(os.Getegid())
	default:
		groups, err := os.Getgroups()
		if err != nil {
			return err
		}
		fmt.Printf("uid=%d gid=%d groups=%s\n", os.Geteuid(), os.Getegid(),
			strings.ReplaceAll(strings.Trim(fmt.Sprint(groups), "[]"), " ", ","))
	}
	return nil
}

// sleep SECONDS, or a number with s, m, h or d, or `infinity`
func sleep(args []string) error {
	if err := operands(args); err != nil {
		return err
	}
	if args[0] == "infinity" || args[0] == "inf" {
		for {
			time.Sleep(time.Hour)
		}
	}
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}
	number, unit := args[0], time.Second
	if given, ok := units[number[len(number)-1]]; ok {
		number, unit = number[:len(number)-1], given
	}
	seconds, err := strconv.ParseFloat(number, 64)
	if err != nil || seconds < 0 {
		return fmt.Errorf("invalid number %q", args[0])
	}
	time.Sleep(time.Duration(seconds * float64(unit)))
	return nil
}

func nslookup(args []string) error {
	if err := operands(args); err != nil {
		return err
	}
	addresses, err := net.LookupHost(args[0])
	if err != nil {
		return err
	}
	fmt.Printf("Name:\t%s\n", args[0])
	for _, address := range addresses {
		fmt.Printf("Address: %s\n", address)
	}
	return nil
}

// wget [-q] [-T SECONDS] [-O FILE] URL, over HTTP; there are no certificates here for HTTPS.
func wget(args []string) error {
	found, urls, err := flags(args, "q", "TO")
	if err == nil {
		err = operands(urls)
	}
	if err != nil {
		return err
	}
	client := http.Client{}
	if has(found, 'T') {
		seconds, err := strconv.ParseFloat(found['T'], 64)
		if err != nil {
			return fmt.Errorf("invalid number %q", found['T'])
		}
		client.Timeout = time.Duration(seconds * float64(time.Second))
	}
	url := urls[0]
	if !strings.Contains(url, "://") {
		url = "http://" + url
	}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New("server returned error: " + response.Status)
	}
	output := found['O']
	if output == "" {
		if output = path.Base(response.Request.URL.Path); output == "/" || output == "." {
			output = "index.html"
		}
	}
	if output == "-" {
		_, err = io.Copy(os.Stdout, response.Body)
		return err
	}
	file, err := os.Create(output)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, response.Body)
	return errors.Join(err, file.Close())
}
