<?php

declare(strict_types=1);

namespace PMP\Analytics\Queue;

/**
 * Seals payloads at rest: AES-256-GCM, bound to the message they belong to.
 *
 * The key is PMP_ANALYTICS_ENCRYPTION_KEY of wp-config.php (base64 of 32 bytes), which keeps it out of database dumps;
 * without the constant a key is generated and stored as an option.
 */
final class Cipher
{
    public const KEY_OPTION = 'pmp_analytics_key';

    private const CONSTANT = 'PMP_ANALYTICS_ENCRYPTION_KEY';

    private const ALGORITHM = 'aes-256-gcm';

    private const NONCE_BYTES = 12;

    private const TAG_BYTES = 16;

    /**
     * @param string $key 32 bytes.
     */
    public function __construct(private readonly string $key)
    {
    }

    public static function of_this_site(): self
    {
        $encoded = defined(self::CONSTANT) ? (string) constant(self::CONSTANT) : (string) get_option(self::KEY_OPTION);
        $key = base64_decode($encoded, true);
        // A passphrase is not a key of 32 bytes, but still protects a dump.
        return new self($key !== false && strlen($key) === 32 ? $key : hash('sha256', $encoded, true));
    }

    public static function make_key(): void
    {
        // add_option() keeps an existing key: another one would make all rows unreadable.
        add_option(self::KEY_OPTION, base64_encode(random_bytes(32)), '', 'no');
    }

    public function seal(string $text, string $belongs_to): string
    {
        $nonce = random_bytes(self::NONCE_BYTES);
        $tag = '';
        $sealed = openssl_encrypt($text, self::ALGORITHM, $this->key, OPENSSL_RAW_DATA, $nonce, $tag, $belongs_to, self::TAG_BYTES);
        return $nonce . $tag . $sealed;
    }

    /**
     * @throws Unreadable Sealed with another key or for another message, or modified.
     */
    public function open(string $sealed, string $belongs_to): string
    {
        $nonce = substr($sealed, 0, self::NONCE_BYTES);
        $tag = substr($sealed, self::NONCE_BYTES, self::TAG_BYTES);
        $text = strlen($tag) === self::TAG_BYTES
            ? openssl_decrypt(
                substr($sealed, self::NONCE_BYTES + self::TAG_BYTES),
                self::ALGORITHM,
                $this->key,
                OPENSSL_RAW_DATA,
                $nonce,
                $tag,
                $belongs_to,
            )
            : false;
        return $text !== false ? $text : throw new Unreadable('sealed with another key, or damaged');
    }
}
