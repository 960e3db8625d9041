<?php

declare(strict_types=1);

namespace PMP\Analytics\Connect;

/**
 * A one-time code of `pmp connect wordpress`: where the mesh is, the token that takes the settings there, and the key that opens
 * them.
 */
final class Code
{
    private const KEY_BYTES = 32;

    /**
     * @param string $url Address of the gateway, without a trailing slash.
     * @param string $key 32 bytes.
     */
    private function __construct(
        public readonly string $url,
        public readonly string $token,
        public readonly string $key,
    ) {
    }

    /**
     * @param string $pasted May contain line breaks, as terminals copy them.
     * @return self|null Null if it is no code, or not all of it.
     */
    public static function read(string $pasted): ?self
    {
        $text = base64_decode(strtr((string) preg_replace('/\s+/', '', $pasted), '-_', '+/'), true);
        $code = $text === false ? null : json_decode($text, true);
        $texts = is_array($code) ? array_filter($code, is_string(...)) : [];
        $key = base64_decode($texts['key'] ?? '', true);
        if (! isset($texts['url'], $texts['token']) || $key === false || strlen($key) !== self::KEY_BYTES) {
            return null;
        }
        return new self(untrailingslashit($texts['url']), $texts['token'], $key);
    }
}
