<?php

declare(strict_types=1);

namespace PMP\Analytics\Rest;

use WP_REST_Request;

/**
 * Whether a request comes from a page of this site. Pages are cached and the same for everybody, so there is no nonce; browsers
 * state the origin of a request themselves.
 */
final class OwnPages
{
    /**
     * Browsers send the origin with every POST. Clients without one are not browsers, and gain nothing from this route.
     */
    public static function is_foreign(WP_REST_Request $request): bool
    {
        $origin = (string) $request->get_header('origin');
        return $origin !== '' && ! self::is_own($origin);
    }

    /**
     * The logged-in user, only if the browser states that the request comes from one of this site's pages: another site's page
     * could send the same cookies.
     */
    public static function user(WP_REST_Request $request): int
    {
        $is_own = self::is_own((string) $request->get_header('origin')) || $request->get_header('sec_fetch_site') === 'same-origin';
        return $is_own ? (int) wp_validate_auth_cookie('', 'logged_in') : 0;
    }

    private static function is_own(string $origin): bool
    {
        $host = wp_parse_url($origin, PHP_URL_HOST);
        /**
         * Hosts of this site's own pages.
         *
         * @param list<string> $hosts
         */
        $own = apply_filters('pmp_analytics_own_hosts', [
            wp_parse_url(home_url(), PHP_URL_HOST),
            wp_parse_url(site_url(), PHP_URL_HOST),
        ]);
        return is_string($host) && in_array($host, $own, true);
    }
}
