/*
 * lab -- a self-signed certificate with names, its key and another one, for tests that speak TLS. After cmocka.h.
 */
#ifndef TEST_NET_LAB_H
#define TEST_NET_LAB_H

#include "net/tls.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct {
    char dir[32], cert[64], key[64], other_key[64], pin[65];
    struct hky_tls *server;
} lab;

static void write_key(const char *path, EVP_PKEY *key)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL), 1);
    fclose(f);
}

/* `alt` is subjectAltName as openssl.cnf(5) has it, NULL for none. */
static void make_certificate(const char *path, EVP_PKEY *key, const char *cn, const char *alt)
{
    X509 *cert = X509_new();
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
    X509_set_pubkey(cert, key);
    X509_NAME *name = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)cn, -1, -1, 0);
    X509_set_issuer_name(cert, name);
    if (alt != NULL) {
        X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, alt);
        X509_add_ext(cert, ext, -1);
        X509_EXTENSION_free(ext);
    }
    assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(PEM_write_X509(f, cert), 1);
    fclose(f);
    X509_free(cert);
}

static int set_up(void **state)
{
    (void)state;
    snprintf(lab.dir, sizeof lab.dir, "/tmp/hky_tls_XXXXXX");
    assert_non_null(mkdtemp(lab.dir));
    snprintf(lab.cert, sizeof lab.cert, "%s/cert.pem", lab.dir);
    snprintf(lab.key, sizeof lab.key, "%s/key.pem", lab.dir);
    snprintf(lab.other_key, sizeof lab.other_key, "%s/other.pem", lab.dir);
    EVP_PKEY *key = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256");
    write_key(lab.key, key);
    write_key(lab.other_key, other);
    make_certificate(lab.cert, key, "test", "DNS:mail.example,DNS:*.wild.example,DNS:p*.part.example,IP:127.0.0.1");
    unsigned char *der = NULL, digest[32];
    int n = i2d_PUBKEY(key, &der);
    assert_int_equal(EVP_Digest(der, (size_t)n, digest, NULL, EVP_sha256(), NULL), 1);
    for (int i = 0; i < 32; i++)
        snprintf(lab.pin + 2 * i, 3, "%02X", digest[i]);
    OPENSSL_free(der);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
    struct hky_error e = {0};
    assert_int_equal(hky_tls_server_new(lab.cert, lab.key, &lab.server, &e), HKY_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hky_tls_unref(&lab.server);
    unlink(lab.cert);
    unlink(lab.key);
    unlink(lab.other_key);
    return rmdir(lab.dir);
}

#endif
