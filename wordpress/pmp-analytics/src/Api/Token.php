<?php

declare(strict_types=1);

namespace PMP\Analytics\Api;

/**
 * The short-lived token of one call: a JWT (RFC 7519), HS256.
 */
final class Token
{
    private const ISSUER = 'pmp-wordpress-integration';

    /** Scope of the shop's server, which reports. */
    public const SITE = 'site';

    /** Scope for reading figures. */
    public const READ = 'read';

    /** Long enough for a clock that is slightly off, short enough to be useless in a leaked log. */
    private const SECONDS = 300;

    public static function mint(string $secret, int $now, string $scope = self::SITE): string
    {
        $claims = ['iss' => self::ISSUER, 'scope' => $scope, 'iat' => $now, 'exp' => $now + self::SECONDS];
        $signed = self::encode('{"alg":"HS256","typ":"JWT"}') . '.' . self::encode((string) wp_json_encode($claims));
        return $signed . '.' . self::encode(hash_hmac('sha256', $signed, $secret, true));
    }

    private static function encode(string $bytes): string
    {
        return rtrim(strtr(base64_encode($bytes), '+/', '-_'), '=');
    }
}
