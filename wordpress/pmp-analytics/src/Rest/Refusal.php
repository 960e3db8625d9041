<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use WP_REST_Response;

/**
 * Error responses in the format of the mesh's errors.
 */
final class Refusal
{
    private const RETRY_AFTER_SECONDS = 60;

    /**
     * @param int $code A google.rpc.Code.
     */
    public static function of(int $status, int $code, string $message): WP_REST_Response
    {
        return new WP_REST_Response(['code' => $code, 'message' => $message, 'details' => []], $status);
    }

    public static function too_many(): WP_REST_Response
    {
        $response = self::of(429, 8, 'Too many requests.');
        $response->header('Retry-After', (string) self::RETRY_AFTER_SECONDS);
        return $response;
    }
}
